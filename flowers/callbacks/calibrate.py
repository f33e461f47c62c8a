"""Calibration of probabilities, and a confidence threshold for predictions."""

import numpy as np
from lightning.pytorch import LightningModule, Trainer

from flowers.callbacks.collect_predictions import CollectPredictions, as_predictions
from flowers.data import FlowersDataModule
from flowers.evaluation import fit_rejection, fit_temperature, reliability, with_temperature
from flowers.tasks import ClassificationTask, expect


class Calibrate(CollectPredictions):
    """Fits temperature and confidence threshold on the validation split; checkpoints store them.

    Args:
        selective_accuracy: Target accuracy, above 0 and up to 1, of the predictions whose
            confidence reaches the threshold.

    Raises:
        ValueError: The accuracy is out of its range.
    """

    def __init__(self, selective_accuracy: float = 0.99) -> None:
        super().__init__()
        expected = "a fraction above 0 and up to 1"
        expect(0 < selective_accuracy <= 1, "selective_accuracy", expected, selective_accuracy)
        self.selective_accuracy = selective_accuracy

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fit temperature and threshold before a checkpoint of this epoch is saved."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        if trainer.sanity_checking or not isinstance(data, FlowersDataModule):
            return
        assert isinstance(pl_module, ClassificationTask)
        predictions = as_predictions(self.gather(trainer), data)
        if not np.isfinite(predictions.probs).all():
            return  # TerminateOnNaN ends the run
        temperature = fit_temperature(predictions)
        calibrated = with_temperature(predictions, temperature)
        rejection = fit_rejection(calibrated, accuracy=self.selective_accuracy)
        pl_module.calibration = {
            "temperature": temperature,
            "selective_accuracy": self.selective_accuracy,
            **rejection._asdict(),
        }
        if trainer.state.fn == "validate" and trainer.is_global_zero:
            before = reliability(predictions).error
            after = reliability(calibrated).error
            print(
                f"temperature {temperature:.3f}: calibration error {before:.3f} before, "
                f"{after:.3f} after; confidence threshold {rejection.threshold:.3f}: coverage "
                f"{rejection.coverage:.1%}, accuracy when answered {rejection.accuracy:.1%}"
            )
