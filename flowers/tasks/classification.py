"""Loss, metrics, optimizer and schedule of every network of the project."""

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
from flowers.tasks.classification_result import Classification, classify
from flowers.tasks.optim import decay_groups, warmup_cosine, warmup_ema

Tensors = tuple[Tensor, ...]  # images, targets, indices


class Prediction(NamedTuple):
    """The logits of a batch or a split.

    Args:
        indices: Positions of the images in the folder's index ``(B,)``.
        logits: Floats ``(B, K)``.
    """

    indices: Tensor
    logits: Tensor


class ClassificationTask(LightningModule):
    """Train a network with cross entropy, AdamW, warm-up and a cosine schedule, and evaluate it.

    Args:
        net: The network; its K logits are in the order of the class names.
        class_names: Names of the K classes; on the command line they come from the data.
        lr: Largest learning rate, reached after the warm-up.
        weight_decay: Weight decay of AdamW (https://arxiv.org/abs/1711.05101), not applied to norms
            and biases.
        warmup_fraction: Fraction of the training steps in which the learning rate rises.
        label_smoothing: Target probability spread equally over all classes in training
            (https://arxiv.org/abs/1512.00567).
        class_weights: Weight of each class in the training loss, in the order of the class names
            (a mean of 1 keeps the scale of the loss), or ``balanced``: inversely proportional to
            the number of training images of the class.
        ema_decay: Decay per step of an exponential moving average of the weights. The average is
            validated, saved and tested instead of the current weights. The decay rises to this
            value over the first steps. ``null``: no average.
        tta: Test-time augmentation: mean log-probability of several views. ``flip``: the
            image and its mirror image; ``flip+crops``: also the four corner crops and their mirror
            images.
        compile: Whether to compile the network with ``torch.compile``.

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
        expect(tta in get_args(Views), "tta", f"one of {', '.join(get_args(Views))}", tta)
        if ema_decay is not None:
            expect(0 < ema_decay < 1, "ema_decay", "a number between 0 and 1", ema_decay)
        self._loss_weights: list[float] | None = None
        if isinstance(class_weights, list):
            is_valid = len(class_weights) == num_classes and any(class_weights)
            is_valid &= all(0 <= weight < float("inf") for weight in class_weights)
            expected = f"{num_classes} numbers of 0 or more, not all 0, for {class_names}"
            expect(is_valid, "class_weights", expected, class_weights)
            self._loss_weights = class_weights
        # Convolutions are faster in channels_last, on a CPU and on a GPU's tensor cores.
        self.net = net.to(memory_format=torch.channels_last)
        self.class_names = list(class_names)
        self.lr = lr
        self.weight_decay = weight_decay
        self.warmup_fraction = warmup_fraction
        self.label_smoothing = label_smoothing
        self.class_weights = class_weights
        self.ema_decay = ema_decay
        self.tta: Views = tta
        self.compile_net = compile
        # Set by the callback Calibrate: temperature, required accuracy, and the threshold with its
        # coverage and accuracy.
        self.calibration: dict[str, float] | None = None
        accuracy = MulticlassAccuracy(num_classes, average="micro", validate_args=False)
        f1 = MulticlassF1Score(num_classes, average="macro", validate_args=False)
        # Lightning's own mean of the loss over several processes is inexact: it divides by the mean
        # number of images of a process, rounded down.
        metrics = MetricCollection({"loss": MeanMetric(), "acc": accuracy, "f1": f1})
        self.train_metrics = metrics.clone(prefix="train/")
        self.val_metrics = metrics.clone(prefix="val/")
        self.test_metrics = metrics.clone(prefix="test/")

    @classmethod
    def data_defaults(cls, options: dict[str, Any]) -> dict[str, Any]:
        """Return defaults of the data module that follow from this task's options; none here."""
        return {}

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``(B, K)`` of float images ``(B, 3, S, S)`` in [0, 1]."""
        net = self.net if self.training else self.evaluated_net
        return net(images)

    @property
    def evaluated_net(self) -> nn.Module:
        """The network, wrapped in its test-time augmentation, if any."""
        return self.net if self.tta == "none" else AverageViews(self.net, self.tta)

    def training_step(self, batch: Tensors, batch_idx: int) -> Tensor:
        """Return the loss of a batch of images, targets (labels or probabilities) and indices."""
        images, targets, *_ = batch
        logits = self(images)
        labels = targets if targets.ndim == 1 else targets.argmax(dim=1)
        weight = None
        if self._loss_weights is not None:
            weight = logits.new_tensor(self._loss_weights)
            if targets.ndim == 1:
                # With class weights, cross_entropy divides by the sum of the images' weights for
                # labels, but by the number of images for soft targets (MixUp, CutMix). One-hot
                # labels count as soft targets, so all batches have the same scale.
                targets = functional.one_hot(labels, len(self.class_names)).to(logits.dtype)
        loss = functional.cross_entropy(
            logits, targets, weight=weight, label_smoothing=self.label_smoothing
        )
        self.log("train/loss_step", loss)
        self._log_epoch(self.train_metrics, logits, labels, loss.detach())
        return loss

    def validation_step(self, batch: Tensors, batch_idx: int) -> Prediction:  # type: ignore[override]
        """Return the logits of a batch of the validation split."""
        return self._evaluate(batch, self.val_metrics)

    def test_step(self, batch: Tensors, batch_idx: int) -> Prediction:  # type: ignore[override]
        """Return the logits of a batch of the test split."""
        return self._evaluate(batch, self.test_metrics)

    def _evaluate(self, batch: Tensors, metrics: MetricCollection) -> Prediction:
        images, labels, indices, *_ = batch
        logits = self(images).float()
        # Without label smoothing and class weights, so that recipes can be compared.
        loss = functional.cross_entropy(logits, labels)
        self._log_epoch(metrics, logits, labels, loss)
        return Prediction(indices, logits)

    def _log_epoch(
        self, metrics: MetricCollection, logits: Tensor, labels: Tensor, loss: Tensor
    ) -> None:
        metrics.update(preds=logits, target=labels, value=loss, weight=len(labels))
        self.log_dict(metrics, on_step=False, on_epoch=True, prog_bar=True)

    def predict_step(self, batch: Tensors, batch_idx: int) -> list[Classification]:
        """Return the classification of each image of a batch, as ``FlowerPredictor`` does."""
        images, _, indices, *_ = batch
        calibration = self.calibration or {"temperature": 1.0, "threshold": 0.0}
        logits = self(images).float().cpu().double()
        probs = (logits / calibration["temperature"]).softmax(dim=1)
        paths = self.trainer.datamodule.image_paths(indices.cpu().numpy())  # type: ignore[attr-defined]
        classifications = []
        for row, path in zip(probs.tolist(), paths, strict=True):
            threshold = calibration["threshold"]
            classifications.append(classify(row, self.class_names, threshold=threshold, path=path))
        return classifications

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the optimizer's parameter groups, which include frozen parameters."""
        return decay_groups(self.net, weight_decay=self.weight_decay)

    def build_optimizer(self) -> torch.optim.Optimizer:
        """Return AdamW over the parameter groups."""
        # In mixed precision, Lightning cannot clip gradients before a fused step.
        fused = not self.trainer.gradient_clip_val
        return torch.optim.AdamW(self.parameter_groups(), lr=self.lr, fused=fused)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Return the optimizer and its learning-rate schedule, updated every step."""
        num_steps = self.trainer.estimated_stepping_batches
        is_limited = num_steps < float("inf")
        expect(is_limited, "max_epochs", "a finite number, which the schedule needs", num_steps)
        warmup_steps = round(num_steps * self.warmup_fraction)
        optimizer = self.build_optimizer()
        factor = partial(warmup_cosine, num_steps=int(num_steps), warmup_steps=warmup_steps)
        scheduler = LambdaLR(optimizer, factor)
        return {
            "optimizer": optimizer,
            # LearningRateMonitor logs the rates under this name.
            "lr_scheduler": {"scheduler": scheduler, "interval": "step", "name": "train/lr"},
        }

    def configure_callbacks(self) -> list[Callback]:
        """Return the callback that averages the weights, if ``ema_decay`` is set."""
        if self.ema_decay is None:
            return []
        # Unlike Lightning's EMAWeightAveraging, this update leaves frozen parameters unchanged.
        return [WeightAveraging(multi_avg_fn=partial(warmup_ema, decay=self.ema_decay))]

    def on_fit_start(self) -> None:
        """Compute balanced class weights, and compile the network, if requested."""
        if self.class_weights == "balanced":
            self._balance_classes()
        if self.compile_net:
            self.net.compile()  # in place, which keeps the keys of the state dict

    def _balance_classes(self) -> None:
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        counts = data.class_counts("train")
        mean = sum(counts) / len(counts)
        self._loss_weights = [mean / count for count in counts]
        texts = []
        for name, weight in zip(self.class_names, self._loss_weights, strict=True):
            texts.append(f"{name} {weight:.3g}")
        rank_zero_info(f"class weights: {', '.join(texts)}")
        if data.sampler == "balanced":
            rank_zero_warn("`class_weights` and `sampler` both balance the classes: use only one.")

    def on_train_start(self) -> None:
        """Set the learning rate of a resumed run to the value of this run's schedule.

        A run of 10 epochs ends with a rate of 0. If it is resumed with 20 epochs, the schedule is
        longer, but the restored optimizer would take the next step with a rate of 0.
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
                    f"The checkpoint's schedule had another length: the learning rate changes from "
                    f"{before:.2g} to {after:.2g}, and falls to 0 by the last epoch"
                )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the format number and the calibration to the checkpoint."""
        checkpoint["format"] = FORMAT
        if self.calibration is not None:
            checkpoint["calibration"] = self.calibration

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the calibration.

        Raises:
            ValueError: The classes or the network differ from the checkpoint's.
        """
        names = checkpoint["hyper_parameters"]["class_names"]
        if names != self.class_names:
            raise ValueError(
                f"`ckpt_path`: expected a checkpoint with the classes of `root`, "
                f"{self.class_names}, got {names}. Give a folder with the checkpoint's classes, "
                f"or train a new network on this folder."
            )
        check_weights(self.net, checkpoint["state_dict"])
        self.calibration = checkpoint.get("calibration")
        if self._trainer is not None and self._trainer.state.fn == "fit":
            warn_of_restored(self.hparams, checkpoint["hyper_parameters"])
