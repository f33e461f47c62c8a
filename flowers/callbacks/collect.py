"""Gathers what the network says of the images of a split, over batches and processes."""

from __future__ import annotations

import numpy as np
import torch
import torch.distributed
from lightning.pytorch import Trainer

from flowers.data import FlowersDataModule
from flowers.evaluation import Predictions, softmax
from flowers.tasks import Prediction


def is_all(limit: float) -> bool:
    """Return whether a limit of the trainer's lets all batches through: 1.0 does, while 1 is a single batch."""
    return isinstance(limit, float) and limit == 1.0


class Collector:
    """Keeps the predictions of batches until all of them are there."""

    def __init__(self) -> None:
        self._batches: list[Prediction] = []

    def clear(self) -> None:
        """Forget all batches."""
        self._batches = []

    def add(self, outputs: Prediction) -> None:
        """Keep a batch."""
        self._batches.append(Prediction(outputs.indices.cpu(), outputs.logits.cpu()))

    def gather(self, trainer: Trainer) -> Prediction:
        """Return the predictions of all processes, in the folder's order; every process has to call it."""
        parts: list[list[Prediction] | None] = [self._batches]
        if trainer.world_size > 1:
            parts = [None] * trainer.world_size
            torch.distributed.all_gather_object(parts, self._batches)
        batches = [batch for part in parts if part is not None for batch in part]
        indices = torch.cat([batch.indices for batch in batches])
        order = indices.argsort()
        return Prediction(indices[order], torch.cat([batch.logits for batch in batches])[order])


def as_predictions(collected: Prediction, data: FlowersDataModule, *, temperature: float = 1.0) -> Predictions:
    """Return collected predictions with names, labels and probabilities.

    Args:
        collected: What the network says.
        data: Whose images they are.
        temperature: What the logits are divided by.
    """
    indices = collected.indices.numpy()
    return Predictions(
        tuple(data.class_names),
        tuple(data.index.paths[index] for index in indices),
        data.index.labels[indices],
        softmax(collected.logits.numpy().astype(np.float64) / temperature),
    )
