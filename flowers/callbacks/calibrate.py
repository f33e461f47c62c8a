"""Makes probabilities mean what they say, and chooses when to give no answer."""

from __future__ import annotations

import numpy as np
from lightning.pytorch import LightningModule, Trainer

from flowers.callbacks.collect_predictions import CollectsPredictions, as_predictions
from flowers.data import FlowersDataModule
from flowers.evaluation import fit_rejection, fit_temperature, reliability, with_temperature
from flowers.tasks import ClassificationTask


class Calibrate(CollectsPredictions):
    """Fits a temperature and a rejection threshold on the validation split, for the checkpoint to carry.

    Args:
        selective_accuracy: Share of the answers that shall be right, which the threshold is chosen
            for.

    Raises:
        ValueError: The share is not between 0 and 1.
    """

    def __init__(self, selective_accuracy: float = 0.99) -> None:
        super().__init__()
        if not 0 < selective_accuracy <= 1:
            raise ValueError(
                f"--calibration.selective_accuracy: expected a share above 0, got {selective_accuracy}"
            )
        self.selective_accuracy = selective_accuracy

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fit, before a checkpoint of this epoch is saved."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        if trainer.sanity_checking or not isinstance(data, FlowersDataModule):
            return
        assert isinstance(pl_module, ClassificationTask)
        found = as_predictions(self.gather(trainer), data)
        if not np.isfinite(found.probs).all():
            return  # another callback says so, and ends the run
        temperature = fit_temperature(found.probs, found.labels)
        probs = with_temperature(found.probs, temperature)
        rejection = fit_rejection(probs, found.labels, accuracy=self.selective_accuracy)
        pl_module.calibration = {
            "temperature": temperature,
            "selective_accuracy": self.selective_accuracy,
            **{name: float(value) for name, value in rejection._asdict().items()},
        }
        if trainer.state.fn == "validate" and trainer.is_global_zero:
            before, after = (
                reliability(values, found.labels).error for values in (found.probs, probs)
            )
            print(
                f"temperature {temperature:.3f}: calibration error {before:.3f} before, {after:.3f} after; answering "
                f"from a confidence of {rejection.threshold:.3f} on, {rejection.coverage:.1%} are answered, "
                f"{rejection.accuracy:.1%} of them rightly"
            )
