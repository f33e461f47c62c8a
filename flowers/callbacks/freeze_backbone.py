"""Freezing of a pretrained backbone while the head learns."""

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from flowers.callbacks.cache_features import cache_features
from flowers.data import FlowersDataModule
from flowers.models import split_stages
from flowers.tasks import ClassificationTask, CNNTask, TransferTask, expect


class FreezeBackbone(Callback):
    """Trains the head first, then also the last stages of the backbone, then all of it.

    A frozen stage has no gradients, and its batch norm and dropout are in evaluation mode. Only the
    epoch determines which parameters are frozen, and the optimizer has all parameters from the
    first step, so that a training can be resumed exactly.

    Args:
        unfreeze_epoch: First epoch, counted from 0, that trains the last stage; earlier epochs
            train only the head. 0: nothing is frozen. ``null``: the backbone stays frozen, and its
            features are computed only once.
        stages: Number of stages of the backbone. From ``unfreeze_epoch`` on, each epoch unfreezes
            one, from the last to the first; 1 unfreezes the whole backbone at once.

    Raises:
        ValueError: An option is out of its range.
    """

    def __init__(self, unfreeze_epoch: int | None = 0, *, stages: int = 1) -> None:
        if unfreeze_epoch is not None:
            expect(unfreeze_epoch >= 0, "unfreeze_epoch", "0 or more", unfreeze_epoch)
        expect(stages >= 1, "stages", "1 or more", stages)
        expected = "1 unless `unfreeze_epoch` is 1 or more"
        expect(stages == 1 or bool(unfreeze_epoch), "stages", expected, stages)
        self.unfreeze_epoch = unfreeze_epoch
        self.stages = stages
        self._reported = 0

    def check(self, task: LightningModule, data: LightningDataModule) -> None:
        """Check the task and the data before any work.

        Raises:
            ValueError: The backbone is not pretrained, or its features cannot be cached.
        """
        if self.unfreeze_epoch == 0:
            return
        is_cached = self.unfreeze_epoch is None
        if isinstance(task, CNNTask) or (is_cached and not isinstance(task, TransferTask)):
            raise ValueError(
                "`unfreeze_epoch`: expected a `TransferTask`, which is pretrained, "
                f"or 0, got {type(task).__name__}"
            )
        if is_cached and not (isinstance(data, FlowersDataModule) and data.cache):
            raise ValueError("`unfreeze_epoch` null: expected `cache` true, to store the features")

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Freeze the backbone now if it stays frozen: DDP registers gradients after ``setup``."""
        if stage == "fit" and self.unfreeze_epoch is None:
            assert isinstance(pl_module, ClassificationTask)
            pl_module.net.backbone.requires_grad_(False)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute the features of a backbone that stays frozen.

        Raises:
            ValueError: ``check`` fails, or the strategy does not support frozen parameters.
        """
        data = trainer.datamodule  # type: ignore[attr-defined]
        self.check(pl_module, data)
        if self.unfreeze_epoch is None:
            assert isinstance(pl_module, TransferTask)
            data.features = cache_features(pl_module, data)
        elif self.unfreeze_epoch > 0 and not getattr(trainer.model, "find_unused_parameters", True):
            raise ValueError(
                "`unfreeze_epoch` above 0: expected `strategy` ddp_find_unused_parameters_true, "
                "because frozen parameters have no gradients to exchange"
            )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Freeze the stages of the backbone that are not yet trained in this epoch."""
        assert isinstance(pl_module, ClassificationTask)
        backbone = pl_module.net.backbone
        num_frozen = self.num_frozen(trainer.current_epoch)
        backbone.train(num_frozen < self.stages)  # also modules outside the stages, such as dropout
        for number, stage in enumerate(split_stages(backbone, self.stages)):
            stage.requires_grad_(number >= num_frozen)
            stage.train(number >= num_frozen)
        if num_frozen != self._reported:
            trained = f"{self.stages - num_frozen} of {self.stages} stages of the backbone"
            names = {self.stages: "only the head", 0: "all of the backbone"}
            trained = names.get(num_frozen, trained)
            rank_zero_info(f"epoch {trainer.current_epoch}: training {trained}")
        self._reported = num_frozen

    on_train_start = on_train_epoch_start  # a run may resume inside an epoch

    def on_fit_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: object, **kwargs: object
    ) -> None:
        """Unfreeze the backbone, and let the data module return images instead of features."""
        assert isinstance(pl_module, ClassificationTask)
        pl_module.net.backbone.requires_grad_().train(pl_module.training)
        data = trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(data, FlowersDataModule):
            data.features = None

    on_exception = on_fit_end

    def num_frozen(self, epoch: int) -> int:
        """Return the number of stages, counted from the input, that are frozen in an epoch."""
        if self.unfreeze_epoch is None:
            return self.stages
        # With unfreeze_epoch 0 there is one stage, so none is frozen.
        return min(self.stages, max(0, self.stages - 1 - (epoch - self.unfreeze_epoch)))
