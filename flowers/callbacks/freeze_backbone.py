"""Keeps a pretrained backbone as it is until the head has learnt."""

from __future__ import annotations

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from flowers.callbacks.cache_features import cache_features
from flowers.data import FlowersDataModule
from flowers.models import split_stages
from flowers.tasks import ClassificationTask, TransferTask


class FreezeBackbone(Callback):
    """Trains the head first, then the last stages of the backbone with it, then all of it.

    A frozen stage has no gradients, and its batch norm and dropout are in evaluation mode. What is
    frozen depends on the epoch alone, and all parameters are in the optimizer from the first step
    on: a resumed training goes on exactly.

    Args:
        unfreeze_epoch: First epoch, counted from 0, in which the last stage learns; before it the
            head learns alone. With 0 nothing is frozen; with ``null`` the backbone stays frozen,
            and its features are computed only once.
        stages: Parts of the backbone that begin to learn one after the other, an epoch between each
            two, the last first; 1 is all of it at once.
        views: With ``unfreeze_epoch null``, augmented views of each training image beside the plain
            one; MixUp and CutMix are none of them.

    Raises:
        ValueError: An option is out of its range.
    """

    def __init__(self, unfreeze_epoch: int | None = 0, *, stages: int = 1, views: int = 0) -> None:
        expected = {
            "unfreeze_epoch": (unfreeze_epoch or 0, 0),
            "stages": (stages, 1),
            "views": (views, 0),
        }
        for name, (value, least) in expected.items():
            if value < least:
                raise ValueError(f"--freeze.{name}: expected {least} or more, got {value}")
        if views and unfreeze_epoch is not None:
            raise ValueError(
                "--freeze.views: expected --freeze.unfreeze_epoch null beside it, since otherwise each epoch augments "
                "anew; give --freeze.views 0"
            )
        if stages > 1 and not unfreeze_epoch:
            raise ValueError(
                "--freeze.stages: expected --freeze.unfreeze_epoch 1 or more beside it"
            )
        self.unfreeze_epoch = unfreeze_epoch
        self.stages = stages
        self.views = views
        self._said: int | None = None

    def check(self, task: LightningModule, data: LightningDataModule) -> None:
        """Say what does not go together, before any work.

        Raises:
            ValueError: The backbone is to stay frozen, and has learnt nothing, or its features
                cannot be cached.
        """
        if self.unfreeze_epoch is not None:
            return
        if not isinstance(task, TransferTask):
            raise ValueError(
                "--freeze.unfreeze_epoch null: expected --model TransferTask, whose backbone has learnt before"
            )
        if not (isinstance(data, FlowersDataModule) and data.cache):
            raise ValueError(
                "--freeze.unfreeze_epoch null: expected --data.cache true, where features come from"
            )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Freeze for good before processes share out the gradients they will exchange."""
        if stage == "fit" and self.unfreeze_epoch is None:
            assert isinstance(pl_module, ClassificationTask)
            pl_module.net.backbone.requires_grad_(False)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute the features where the backbone stays frozen.

        Raises:
            ValueError: As ``check``; or several processes cannot share the gradients; or the
                precision is not float32.
        """
        data = trainer.datamodule  # type: ignore[attr-defined]
        self.check(pl_module, data)
        if self.unfreeze_epoch is None:
            assert isinstance(pl_module, TransferTask)
            if next(pl_module.parameters()).dtype != torch.float32:
                raise ValueError(
                    "--trainer.precision: expected 32-true or a mixed one, since features are of 32 bits"
                )
            data.features = cache_features(pl_module, data, views=self.views)
        elif self.unfreeze_epoch > 0 and not getattr(trainer.model, "find_unused_parameters", True):
            raise ValueError(
                "--freeze.unfreeze_epoch: expected --trainer.strategy ddp_find_unused_parameters_true, since frozen "
                "parameters have no gradients to exchange"
            )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Freeze what is frozen in this epoch."""
        assert isinstance(pl_module, ClassificationTask)
        backbone, num_frozen = pl_module.net.backbone, self.num_frozen(trainer.current_epoch)
        backbone.train(
            num_frozen < self.stages
        )  # what stands outside of the stages too, as dropout
        for number, stage in enumerate(split_stages(backbone, self.stages)):
            stage.requires_grad_(number >= num_frozen)
            stage.train(number >= num_frozen)
        if num_frozen != (self._said or 0):
            parts = (
                f"{self.stages - num_frozen} of {self.stages} stages of the backbone learn"
                if num_frozen
                else ""
            )
            alone = (
                "the head learns alone"
                if num_frozen == self.stages
                else parts or "all of the backbone learns"
            )
            rank_zero_info(f"epoch {trainer.current_epoch}: {alone}")
        self._said = num_frozen

    on_train_start = on_train_epoch_start  # a run may go on inside of an epoch

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave nothing frozen, and give the images back to the data module, for whatever comes next."""
        assert isinstance(pl_module, ClassificationTask)
        pl_module.net.backbone.requires_grad_().train(pl_module.training)
        if isinstance(data := trainer.datamodule, FlowersDataModule):  # type: ignore[attr-defined]
            data.features = []

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Do the same after an error."""
        self.on_fit_end(trainer, pl_module)

    def num_frozen(self, epoch: int) -> int:
        """Return how many stages, counted from the input, are frozen in an epoch."""
        if self.unfreeze_epoch is None:
            return self.stages
        if self.unfreeze_epoch == 0:
            return 0
        return min(self.stages, max(0, self.stages - 1 - (epoch - self.unfreeze_epoch)))
