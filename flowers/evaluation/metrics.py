"""Predictions to numbers: scikit-learn's metrics, under names that say of which class they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flowers.evaluation.predictions import PredictionTable


def scores(predictions: PredictionTable) -> dict[str, float]:
    """Return accuracy, balanced accuracy, macro-F1, log loss (nats), and precision, recall and F1 of each class.

    A class without a prediction has precision 0; one without an image counts in none of the means.
    """
    labels, predicted = predictions.labels, predictions.probs.argmax(axis=1)
    classes = np.arange(len(predictions.class_names))
    present = np.unique(labels)
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, predicted, labels=classes, zero_division=0
    )
    # Written with six decimals, the probabilities of a row may sum to a millionth more or less than
    # 1.
    probs = predictions.probs / predictions.probs.sum(axis=1, keepdims=True)
    overall = {
        "accuracy": accuracy_score(labels, predicted),
        "balanced accuracy": recall[present].mean(),
        "macro-F1": f1_score(labels, predicted, labels=present, average="macro", zero_division=0),
        "log loss": log_loss(labels, probs, labels=classes),
    }
    by_class = {
        f"{name}/{metric}": values[label]
        for label, name in enumerate(predictions.class_names)
        for metric, values in {"precision": precision, "recall": recall, "F1": f1}.items()
    }
    return {name: float(value) for name, value in (overall | by_class).items()}


def confusion(predictions: PredictionTable) -> NDArray[np.int64]:
    """Return how many images of each class (row) were taken for each class (column), ``(K, K)``."""
    classes = np.arange(len(predictions.class_names))
    counts: NDArray[np.int64] = confusion_matrix(
        predictions.labels, predictions.probs.argmax(axis=1), labels=classes
    )
    return counts
