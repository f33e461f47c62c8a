"""How any network of the project learns to classify."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from flowers.checkpoint import FORMAT
from flowers.models import AverageViews, ImageClassifier, Views
from flowers.tasks.checks import check_weights, expect, warn_of_restored
from flowers.tasks.classify import Classification, classify
from flowers.tasks.optim import decay_groups, warmup_cosine, warmup_ema


class Prediction(NamedTuple):
    """What the network says of a batch.

    Args:
        indices: Positions of the images in the folder's index ``(B,)``.
        logits: Floats ``(B, K)``.
    """

    indices: Tensor
    logits: Tensor


class ClassificationTask(LightningModule):
    """Cross entropy, AdamW, warm-up and cosine per step, an average of the weights, and the metrics of every stage.

    Args:
        net: The network; its K logits are in the order of the class names.
        class_names: Names of the K classes; on the command line they come from the data.
        lr: Largest learning rate, reached after the warm-up.
        weight_decay: Weight decay of AdamW (https://arxiv.org/abs/1711.05101); norms and biases
            have none.
        warmup_fraction: Share of the training over which the learning rate rises.
        label_smoothing: Probability given to all classes alike in the training targets
            (https://arxiv.org/abs/1512.00567).
        class_weights: Weight of each class in the training loss, in the order of the class names (1
            on average keeps the scale of the loss), or ``balanced``: inverse to the number of its
            training images.
        ema_decay: Decay per step of an exponential moving average of the weights, which then is
            what is validated, saved and tested; it rises to this value over the first steps. None
            by default.
        tta: Test-time augmentation: what is evaluated is the mean over several views of an image,
            ``flip`` with its mirror image, ``flip+crops`` with its corners too.
        compile: Whether the network is compiled by ``torch.compile``.

    Raises:
        ValueError: An option is out of its range.
    """

    def __init__(
        self,
        net: ImageClassifier,
        class_names: list[str],
        *,
        lr: float = 2e-3,
        weight_decay: float = 0.05,
        warmup_fraction: float = 0.1,
        label_smoothing: float = 0.1,
        class_weights: list[float] | Literal["balanced"] | None = None,
        ema_decay: float | None = None,
        tta: Views = "none",
        compile: bool = False,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["net", "weights"])
        num_classes = len(class_names)
        expect(num_classes >= 2, "class_names", "at least 2", class_names)
        expect(lr > 0, "lr", "a number above 0", lr)
        expect(weight_decay >= 0, "weight_decay", "0 or more", weight_decay)
        expect(0 <= warmup_fraction < 1, "warmup_fraction", "0 or more, below 1", warmup_fraction)
        expect(0 <= label_smoothing < 1, "label_smoothing", "0 or more, below 1", label_smoothing)
        expect(tta in get_args(Views), "tta", f"one of {get_args(Views)}", tta)
        expect(
            ema_decay is None or 0 < ema_decay < 1,
            "ema_decay",
            "a number between 0 and 1",
            ema_decay,
        )
        right_length = not isinstance(class_weights, list) or len(class_weights) == num_classes
        expect(
            right_length,
            "class_weights",
            f"{num_classes} numbers, one for each of {class_names}",
            class_weights,
        )
        usable = not isinstance(class_weights, list) or (
            all(0 <= w < float("inf") for w in class_weights) and any(class_weights)
        )
        expect(usable, "class_weights", "numbers of 0 or more, not all 0", class_weights)
        # Convolutions are faster on channels_last, on a CPU and on a GPU's tensor cores.
        self.net = net.to(memory_format=torch.channels_last)
        self.class_names = list(class_names)
        self.lr = lr
        self.weight_decay = weight_decay
        self.warmup_fraction = warmup_fraction
        self.label_smoothing = label_smoothing
        self.class_weights = class_weights
        self._loss_weights = class_weights if isinstance(class_weights, list) else None
        self.ema_decay = ema_decay
        self.tta: Views = tta
        self.compile_net = compile
        # Temperature, rejection threshold and what it was chosen for, as plain numbers; set by a
        # callback.
        self.calibration: dict[str, float] | None = None
        metrics = MetricCollection(
            {
                "acc": MulticlassAccuracy(num_classes, average="micro", validate_args=False),
                "f1": MulticlassF1Score(num_classes, average="macro", validate_args=False),
            }
        )
        self.train_metrics = metrics.clone(prefix="train/")
        self.val_metrics = metrics.clone(prefix="val/")
        self.test_metrics = metrics.clone(prefix="test/")
        # Lightning's own mean over processes cuts their average number of images down to a whole
        # number.
        self.train_loss, self.val_loss, self.test_loss = MeanMetric(), MeanMetric(), MeanMetric()

    @classmethod
    def data_defaults(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return defaults of the data module that go with some options of this task; none here."""
        return {}

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``(B, K)`` of float images ``(B, 3, S, S)`` in [0, 1]."""
        net = self.net if self.training else self.evaluated_net
        logits: Tensor = net(images)
        return logits

    @property
    def evaluated_net(self) -> nn.Module:
        """The network with its test-time augmentation."""
        return self.net if self.tta == "none" else AverageViews(self.net, self.tta)

    def training_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> Tensor:
        """Return the loss of a batch of images, targets and indices; the targets may be soft."""
        images, targets, *_ = batch
        logits = self(images)
        labels = targets.argmax(dim=1) if targets.ndim == 2 else targets
        weight = None
        if self._loss_weights is not None:
            weight = logits.new_tensor(self._loss_weights)
            if (
                targets.ndim == 1
            ):  # torch divides the loss of soft targets by their number, as it does then here too
                targets = functional.one_hot(labels, len(self.class_names)).to(logits.dtype)
        loss = functional.cross_entropy(
            logits, targets, weight=weight, label_smoothing=self.label_smoothing
        )
        self.train_metrics.update(logits, labels)
        self.log("train/loss_step", loss)
        self._log_epoch("train", self.train_loss, self.train_metrics, loss.detach(), len(images))
        return loss

    def validation_step(  # type: ignore[override]
        self, batch: tuple[Tensor, ...], batch_idx: int
    ) -> Prediction:
        """Count a batch of the validation split, and return what the network says of it."""
        return self._evaluate(batch, "val", self.val_loss, self.val_metrics)

    def test_step(  # type: ignore[override]
        self, batch: tuple[Tensor, ...], batch_idx: int
    ) -> Prediction:
        """Count a batch of the test split, and return what the network says of it."""
        return self._evaluate(batch, "test", self.test_loss, self.test_metrics)

    def _evaluate(
        self,
        batch: tuple[Tensor, ...],
        stage: str,
        mean_loss: MeanMetric,
        metrics: MetricCollection,
    ) -> Prediction:
        images, labels, indices, *_ = batch
        logits = self(images).float()
        metrics.update(logits, labels)
        # The plain cross entropy, without smoothing and weights: comparable between recipes.
        self._log_epoch(
            stage, mean_loss, metrics, functional.cross_entropy(logits, labels), len(images)
        )
        return Prediction(indices, logits)

    def _log_epoch(
        self,
        stage: str,
        mean_loss: MeanMetric,
        metrics: MetricCollection,
        loss: Tensor,
        num_images: int,
    ) -> None:
        mean_loss.update(loss, weight=num_images)
        self.log(f"{stage}/loss", mean_loss, on_step=False, on_epoch=True, prog_bar=stage == "val")
        self.log_dict(metrics, on_step=False, on_epoch=True, prog_bar=stage == "val")

    def predict_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> list[Classification]:
        """Return class, probabilities and path of each image of a batch, as ``FlowerPredictor`` does."""
        images, _, indices, *_ = batch
        calibration = self.calibration or {"temperature": 1.0, "threshold": 0.0}
        logits = self(images).float().cpu().double()
        probs = (logits / calibration["temperature"]).softmax(dim=1)
        paths = self.trainer.datamodule.image_paths(indices.cpu().numpy())  # type: ignore[attr-defined]
        return classify(probs, self.class_names, threshold=calibration["threshold"], paths=paths)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the optimizer's groups; every parameter is in exactly one of them, from the first step on."""
        return decay_groups(self.net, weight_decay=self.weight_decay)

    def build_optimizer(self) -> torch.optim.Optimizer:
        """Return AdamW over the parameter groups."""
        # Lightning cannot clip gradients in mixed precision beside the fused step.
        fused = not self.trainer.gradient_clip_val
        return torch.optim.AdamW(self.parameter_groups(), lr=self.lr, fused=fused)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Return the optimizer and its schedule per step."""
        num_steps = self.trainer.estimated_stepping_batches
        expect(
            num_steps < float("inf"), "max_epochs", "a number: the schedule needs an end", num_steps
        )
        warmup_steps = round(num_steps * self.warmup_fraction)
        optimizer = self.build_optimizer()
        factor = partial(warmup_cosine, num_steps=int(num_steps), warmup_steps=warmup_steps)
        scheduler = LambdaLR(optimizer, factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def configure_callbacks(self) -> Sequence[Callback]:
        """Return the average of the weights, where one is asked for."""
        if self.ema_decay is None:
            return []
        # Unlike that of Lightning's own subclass, this average of equal numbers is that number:
        # what is frozen stays.
        return [WeightAveraging(multi_avg_fn=warmup_ema(self.ema_decay))]

    def on_fit_start(self) -> None:
        """Balance the classes, and compile the network in place, so that no key of the state dict changes."""
        if self.class_weights == "balanced":
            counts = self.trainer.datamodule.class_counts("train")  # type: ignore[attr-defined]
            expect(
                min(counts) > 0,
                "class_weights",
                "training images of every class for 'balanced'",
                counts,
            )
            self._loss_weights = [sum(counts) / (len(counts) * count) for count in counts]
            weights = zip(self.class_names, self._loss_weights, strict=True)
            rank_zero_info(
                "class weights: " + ", ".join(f"{name} {weight:.3g}" for name, weight in weights)
            )
            if self.trainer.datamodule.sampler == "balanced":  # type: ignore[attr-defined]
                rank_zero_warn(
                    "--model.class_weights and --data.sampler both balance the classes: one is enough."
                )
        if self.compile_net:
            self.net.compile()

    def on_train_start(self) -> None:
        """Move a resumed run to the learning rate of its schedule, and report it where the schedule has another length.

        A run of 10 epochs that is resumed with 20 ended at a rate of 0, and would train its next
        step with that.
        """
        for config in self.trainer.lr_scheduler_configs:
            schedule = config.scheduler
            if not isinstance(schedule, LambdaLR):
                continue  # a schedule of the user's own
            groups = schedule.optimizer.param_groups
            before = groups[-1]["lr"]
            for group, base_lr, factor in zip(
                groups, schedule.base_lrs, schedule.lr_lambdas, strict=True
            ):
                group["lr"] = base_lr * factor(schedule.last_epoch)
            after = groups[-1]["lr"]
            if before != after:
                rank_zero_info(
                    f"The schedule has another length than in the checkpoint: the learning rate goes from "
                    f"{before:.2g} to {after:.2g} now, and falls to 0 by the last epoch"
                )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the format and the calibration."""
        checkpoint["format"] = FORMAT
        if self.calibration is not None:
            checkpoint["calibration"] = self.calibration

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the calibration; refuse other classes, whose weights would load and name every flower wrongly.

        Raises:
            ValueError: The class names differ.
        """
        names = checkpoint["hyper_parameters"]["class_names"]
        if names != self.class_names:
            raise ValueError(
                f"--ckpt_path: the checkpoint tells apart the classes {names}, `root` holds {self.class_names}. "
                f"Give a folder with the checkpoint's classes, or train a new network on this one."
            )
        check_weights(self.net, checkpoint["state_dict"])
        self.calibration = checkpoint.get("calibration")
        if self._trainer is not None and self._trainer.state.fn == "fit":
            warn_of_restored(self.hparams, checkpoint["hyper_parameters"])
