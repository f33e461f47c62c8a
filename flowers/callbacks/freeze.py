"""Keeps a pretrained backbone as it is until the head has learnt."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from flowers.callbacks.features import cache_features
from flowers.data import FlowersDataModule
from flowers.models import split_stages
from flowers.tasks import ClassificationTask, TransferTask


class FreezeBackbone(Callback):
    """Trains the head first, then the last stages of the backbone with it, then all of it.

    A frozen stage has no gradients, and its batch norm and dropout are in evaluation mode. What is frozen depends on
    the epoch alone, and all parameters are in the optimizer from the first step on: a resumed training goes on exactly.

    Args:
        unfreeze_epoch: First epoch, counted from 0, in which the last stage learns; before it the head learns alone.
            With 0 nothing is frozen; with ``null`` the backbone stays frozen, and its features are computed only once.
        stages: Parts of the backbone that begin to learn one after the other, an epoch between each two, the last
            first; 1 is all of it at once.
        views: With ``unfreeze_epoch null``, augmented views of each training image beside the plain one.

    Raises:
        ValueError: An option is out of its range.
    """

    def __init__(self, unfreeze_epoch: int | None = 0, *, stages: int = 1, views: int = 0) -> None:
        expected = {"unfreeze_epoch": (unfreeze_epoch or 0, 0), "stages": (stages, 1), "views": (views, 0)}
        for name, (value, least) in expected.items():
            if value < least:
                raise ValueError(f"--freeze.{name}: expected {least} or more, got {value}")
        if views and unfreeze_epoch is not None:
            raise ValueError("--freeze.views: expected --freeze.unfreeze_epoch null, else each epoch augments anew")
        self.unfreeze_epoch = unfreeze_epoch
        self.stages = stages
        self.views = views
        self._said: int | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Freeze for good before processes share out the gradients they will exchange."""
        if stage == "fit" and self.unfreeze_epoch is None:
            assert isinstance(pl_module, ClassificationTask)
            pl_module.net.backbone.requires_grad_(False)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute the features where the backbone stays frozen.

        Raises:
            ValueError: The task has no features of whole images, or several processes cannot share the gradients.
        """
        if self.unfreeze_epoch is None:
            if not isinstance(pl_module, TransferTask):
                raise ValueError(
                    "--freeze.unfreeze_epoch null: expected --model TransferTask, whose backbone has learnt before"
                )
            data = trainer.datamodule  # type: ignore[attr-defined]
            assert isinstance(data, FlowersDataModule)
            data.features = cache_features(pl_module, data, views=self.views)
        elif self.unfreeze_epoch > 0 and not getattr(trainer.model, "find_unused_parameters", True):
            raise ValueError(
                "--freeze.unfreeze_epoch: expected --trainer.strategy ddp_find_unused_parameters_true, since frozen "
                "parameters have no gradients to exchange"
            )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Freeze what is frozen in this epoch."""
        assert isinstance(pl_module, ClassificationTask)
        stages = split_stages(pl_module.net.backbone, self.stages)
        num_frozen = self.num_frozen(trainer.current_epoch)
        for number, stage in enumerate(stages):
            stage.requires_grad_(number >= num_frozen)
            stage.train(number >= num_frozen)
        if num_frozen != self._said and (num_frozen or self._said):
            learning = "the head alone" if num_frozen == self.stages else "the head and all of the backbone"
            if 0 < num_frozen < self.stages:
                learning = f"the head and {self.stages - num_frozen} of {self.stages} stages of the backbone"
            rank_zero_info(f"epoch {trainer.current_epoch}: {learning} learn{'s' if num_frozen == self.stages else ''}")
        self._said = num_frozen

    def num_frozen(self, epoch: int) -> int:
        """Return how many stages, counted from the input, are frozen in an epoch."""
        if self.unfreeze_epoch is None:
            return self.stages
        return min(self.stages, max(0, self.stages - (epoch - self.unfreeze_epoch + 1))) if self.unfreeze_epoch else 0
