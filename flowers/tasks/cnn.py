"""Training the project's own network from scratch."""

from typing import Any

import torch

from flowers.models import Norm, flower_cnn
from flowers.tasks.checks import expect
from flowers.tasks.classification import ClassificationTask
from flowers.tasks.muon import Muon


class CNNTask(ClassificationTask):
    """A convolutional network trained from scratch with Muon.

    Args:
        class_names: Names of the K classes; on the command line they come from the data.
        widths: Channels of each stage of the network, even numbers; each stage halves the
            resolution.
        depth: Residual blocks per stage.
        stem_stride: Side of the patches of the network's first layer, in pixels.
        dropout: Probability that a feature is dropped before the dense layer.
        norm: Normalisation of the feature maps.
        lr: Largest learning rate, reached after the warm-up.
        weight_decay: Weight decay, not applied to norms and biases.
        kwargs: Other options of ``ClassificationTask``.

    Raises:
        ValueError: An option is out of its range.
    """

    def __init__(
        self,
        class_names: list[str],
        *,
        widths: tuple[int, ...] = (48, 96, 192),
        depth: int = 1,
        stem_stride: int = 4,
        dropout: float = 0.2,
        norm: Norm = "batch",
        lr: float = 3e-3,
        weight_decay: float = 0.3,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        even = bool(widths) and all(width > 0 and width % 2 == 0 for width in widths)
        expect(even, "widths", "one or more numbers, each even and above 0", widths)
        expect(depth >= 0, "depth", "0 or more blocks", depth)
        expect(stem_stride >= 1, "stem_stride", "at least 1 pixel", stem_stride)
        expect(0 <= dropout < 1, "dropout", "0 or more, below 1", dropout)
        net = flower_cnn(
            len(class_names),
            widths=widths,
            depth=depth,
            stem_stride=stem_stride,
            dropout=dropout,
            norm=norm,
        )
        super().__init__(net, class_names, lr=lr, weight_decay=weight_decay, **kwargs)

    def build_optimizer(self) -> torch.optim.Optimizer:
        """Return Muon for the convolutions, AdamW for the dense layer, norms and biases."""
        return Muon(self.parameter_groups(), lr=self.lr)
