"""Predictions of a whole split, from all batches and processes."""

from itertools import chain
from typing import Any

import torch
import torch.distributed
from lightning.pytorch import Callback, LightningModule, Trainer

from flowers.data import FlowersDataModule
from flowers.evaluation import PredictionTable
from flowers.tasks import Prediction


def is_all(limit: float) -> bool:
    """Return whether a trainer's limit means all batches: the fraction 1.0, not the number 1."""
    return isinstance(limit, float) and limit == 1.0


class CollectPredictions(Callback):
    """Base of callbacks that need the predictions of a whole split."""

    def __init__(self) -> None:
        self._batches: list[Prediction] = []

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Delete the predictions of an earlier epoch."""
        self._batches = []

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401
        *args: object,
        **kwargs: object,
    ) -> None:
        """Keep the predictions of the batch."""
        indices, logits = outputs
        self._batches.append(Prediction(indices.cpu(), logits.cpu()))

    on_test_batch_end = on_validation_batch_end

    def gather(self, trainer: Trainer) -> Prediction:
        """Return all processes' predictions, sorted by index; every process must call this."""
        batches = self._batches
        if trainer.world_size > 1:
            parts: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(parts, self._batches)
            batches = list(chain.from_iterable(parts))
        indices, logits = map(torch.cat, zip(*batches, strict=True))
        order = indices.argsort()
        return Prediction(indices[order], logits[order])


def as_predictions(
    collected: Prediction, data: FlowersDataModule, *, temperature: float = 1.0
) -> PredictionTable:
    """Return collected predictions with class names, paths, labels and probabilities.

    Args:
        collected: Indices and logits.
        data: The data module of the images.
        temperature: Divisor of the logits.
    """
    indices = collected.indices.numpy()
    return PredictionTable(
        tuple(data.class_names),
        tuple(map(data.index.paths.__getitem__, indices)),
        data.index.labels[indices],
        (collected.logits.double() / temperature).softmax(dim=1).numpy(),
    )
