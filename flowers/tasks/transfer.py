"""Fine-tuning of a pretrained network."""

from typing import Any

from torch import Tensor

from flowers.models import preprocessing, pretrained, split_stages
from flowers.tasks.checks import expect
from flowers.tasks.classification import ClassificationTask
from flowers.tasks.optim import decay_groups

# Each stage has its own learning rate, and its own curve in TensorBoard.
_NUM_STAGES = 4


class TransferTask(ClassificationTask):
    """A classifier of torchvision or timm with pretrained weights and a new head.

    Args:
        class_names: Names of the K classes; on the command line they come from the data.
        arch: Any classifier of torchvision, such as ``mobilenet_v2``, ``resnet50``,
            ``convnext_tiny`` or ``vgg16``, or of timm, such as ``timm/resnet50``.
        weights: ``DEFAULT``, another name of torchvision's weights such as ``IMAGENET1K_V1``,
            ``none`` (random weights), the path of a ``.pth`` state dict, with or without the last
            layer, or the path of a checkpoint, whose weights start a new training.
        dropout: Probability that a feature is dropped before the dense layer.
        stage_decay: Ratio of the learning rates of two neighbouring quarters of the backbone, and
            of its last quarter and the head. Quarters near the input have lower rates, because
            their features are more general (https://arxiv.org/abs/1801.06146, section 3.2).
        lr: Largest learning rate of the head.
        ema_decay: Decay per step of an exponential moving average of the weights. The average is
            validated, saved and tested instead of the current weights. ``null``: no average.
        kwargs: Other options of ``ClassificationTask``.

    Raises:
        ValueError: An option is out of its range, or the weights belong to another network.
        OSError: The weights cannot be read or downloaded.
    """

    def __init__(
        self,
        class_names: list[str],
        *,
        arch: str = "mobilenet_v2",
        weights: str = "DEFAULT",
        dropout: float = 0.2,
        stage_decay: float = 0.5,
        lr: float = 1e-3,
        ema_decay: float | None = 0.99,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        expect(0 <= dropout < 1, "dropout", "0 or more, below 1", dropout)
        expect(0 < stage_decay <= 1, "stage_decay", "a number above 0 and up to 1", stage_decay)
        net = pretrained(arch, len(class_names), weights=weights, dropout=dropout)
        super().__init__(net, class_names, lr=lr, ema_decay=ema_decay, **kwargs)
        self.hparams["weights"] = "none"  # restoring a checkpoint needs no pretrained weights
        self.stage_decay = stage_decay

    @classmethod
    def data_defaults(cls, options: dict[str, Any]) -> dict[str, Any]:
        """Return defaults of the data module: the weights' preprocessing, and less augmentation.

        Args:
            options: Options of this class.

        Raises:
            ValueError: The network or the weights are unknown.
        """
        images = preprocessing(options["arch"], options["weights"])
        return {
            "image_size": images.image_size,
            "crop_size": None,
            "interpolation": images.interpolation,
            # Fine-tuning needs few epochs; strong augmentation would need more.
            "augment.min_scale": 0.5,
            "augment.rotation": 0.0,
            "augment.cutmix_prob": 0.0,
        }

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``(B, K)`` of images ``(B, 3, S, S)`` or features ``(B, F)``."""
        if images.ndim == 2:
            return self.net.head(images)
        return super().forward(images)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the optimizer's groups; each stage of the backbone has its own learning rate."""
        stages = [*split_stages(self.net.backbone, _NUM_STAGES), self.net.head]
        groups = []
        for number, stage in enumerate(stages):
            name = "head" if number == _NUM_STAGES else f"stage_{number}"
            lr = self.lr * self.stage_decay ** (_NUM_STAGES - number)
            for group in decay_groups(stage, weight_decay=self.weight_decay):
                groups.append(group | {"lr": lr, "name": f"{name}/{group['name']}"})
        return groups
