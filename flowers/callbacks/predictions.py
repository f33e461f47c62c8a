"""Writes what ``predict`` finds."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import LightningModule, Trainer

from flowers.callbacks.collect import CollectsPredictions, as_predictions
from flowers.data import FlowersDataModule
from flowers.evaluation import predictions_csv
from flowers.runs import check_new, write_new
from flowers.tasks import ClassificationTask


class WritePredictions(CollectsPredictions):
    """Writes ``path, label, predicted`` and the probability of each class, a row per image, in the folder's order.

    The probabilities are calibrated where the checkpoint carries a calibration.

    Args:
        file: CSV file to write; it must not exist. If it appears during the run, it stays: the results
            then get a number.
    """

    def __init__(self, file: str = "predictions.csv") -> None:
        super().__init__()
        self.file = Path(file)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse to overwrite, before any work.

        Raises:
            FileExistsError: The file exists.
            FileNotFoundError: Its folder does not.
        """
        check_new(self.file, option="--predictions.file")

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file, from the predictions of all processes.

        Raises:
            OSError: It cannot be written.
        """
        collected, data = self.gather(trainer), trainer.datamodule  # type: ignore[attr-defined]
        if not (trainer.is_global_zero and isinstance(data, FlowersDataModule)):
            return
        assert isinstance(pl_module, ClassificationTask)
        temperature = (pl_module.calibration or {}).get("temperature", 1.0)
        found = as_predictions(collected, data, temperature=temperature, tta=collected.tta_log_probs is not None)
        contents = {self.file.name: predictions_csv(found)}
        [file] = write_new(self.file.parent, contents, option="--predictions.file")
        print(f"Predictions of {len(found.paths):,} images: {file}")
