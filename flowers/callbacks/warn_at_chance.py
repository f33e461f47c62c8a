"""Warning about a validation accuracy at chance level."""

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from flowers.data import FlowersDataModule
from flowers.evaluation import wilson_interval

# More than one, as one validation at chance may be coincidence; fewer than the 15 validations after
# which early stopping ends the run by default.
_NUM_VALIDATIONS = 5


class WarnAtChance(Callback):
    """Warns if the accuracy of five validations in a row is at chance, but that of training is not.

    Chance is the accuracy of always predicting the largest class. Accuracies are compared by their
    95 % intervals, because accuracies on a small validation split are noisy.
    """

    _epochs_at_chance = 0
    _is_validated = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that this epoch has a validation."""
        self._is_validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the epochs at chance."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        if not (self._is_validated and isinstance(data, FlowersDataModule)):
            return
        self._is_validated = False
        val_acc = trainer.callback_metrics["val/acc"]
        train_acc = trainer.callback_metrics["train/acc"]
        lowest_val, highest_val = _interval(val_acc, data, "val")
        lowest_train, _ = _interval(train_acc, data, "train")
        counts = data.class_counts("val")
        chance = max(counts) / sum(counts)
        if lowest_val > chance or highest_val >= lowest_train:
            self._epochs_at_chance = 0
            return
        self._epochs_at_chance += 1
        if self._epochs_at_chance == _NUM_VALIDATIONS:
            rank_zero_warn(
                f"The validation accuracy ({val_acc:.1%}) has been at chance ({chance:.1%}, the "
                f"fraction of the largest class) in {_NUM_VALIDATIONS} validations, while the "
                f"training accuracy is {train_acc:.1%}. Check the labels of the validation images, "
                f"and try `ema_decay` null or a lower `lr`."
            )

    def state_dict(self) -> dict[str, int]:
        """Return the number of epochs at chance."""
        return {"epochs_at_chance": self._epochs_at_chance}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Restore the number of epochs at chance."""
        self._epochs_at_chance = state_dict["epochs_at_chance"]


def _interval(accuracy: Tensor, data: FlowersDataModule, split: str) -> tuple[float, float]:
    return wilson_interval(float(accuracy), len(data.indices[split]))
