"""Metrics of predictions, computed by scikit-learn, and confidence intervals."""

import math
from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, t
from sklearn.metrics import (
    confusion_matrix,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
    recall_score,
)

from flowers.evaluation.calibration import reliability
from flowers.evaluation.predictions import PredictionTable


def class_metrics(predictions: PredictionTable) -> dict[str, dict[str, float]]:
    """Return precision, recall, F1 and support (number of images) of each class.

    The precision of a class that is never predicted is 0.
    """
    classes = np.arange(len(predictions.class_names))
    columns = precision_recall_fscore_support(
        predictions.labels, predictions.predicted, labels=classes, zero_division=0
    )
    rows = zip(*(column.tolist() for column in columns), strict=True)
    metrics = {}
    for name, row in zip(predictions.class_names, rows, strict=True):
        metrics[name] = dict(zip(("precision", "recall", "F1", "support"), row, strict=True))
    return metrics


def scores(predictions: PredictionTable) -> dict[str, float]:
    """Return accuracy, balanced accuracy, macro-F1, log loss, and the scores of each class.

    The log loss is in nats. The scores of a class are ``<class>/precision``, ``<class>/recall`` and
    ``<class>/F1``. As in scikit-learn and torchmetrics, the balanced accuracy is the mean recall
    of the classes with images, and macro-F1 the mean F1 of those with images or predictions.
    """
    labels = predictions.labels
    predicted = predictions.predicted
    recall = recall_score(labels, predicted, labels=np.unique(labels), average="macro")
    # In predictions.csv the probabilities are rounded, so their sum is not exactly 1.
    probs = predictions.probs / predictions.probs.sum(axis=1, keepdims=True)
    loss = log_loss(labels, probs, labels=np.arange(probs.shape[1]))
    values = {
        "accuracy": predictions.accuracy,
        "balanced accuracy": float(recall),
        "macro-F1": float(f1_score(labels, predicted, average="macro")),
        "log loss": float(loss),
    }
    for name, metrics in class_metrics(predictions).items():
        for key in ("precision", "recall", "F1"):
            values[f"{name}/{key}"] = metrics[key]
    return values


def overall_metrics(predictions: PredictionTable) -> dict[str, Any]:
    """Return the scores over all classes under the names that the JSON reports use."""
    values = scores(predictions)
    interval = wilson_interval(values["accuracy"], len(predictions.labels))
    return {
        "accuracy": values["accuracy"],
        "accuracy_interval_95": list(interval),
        "macro_f1": values["macro-F1"],
        "balanced_accuracy": values["balanced accuracy"],
        "log_loss": values["log loss"],
        "ece": reliability(predictions).error,
    }


def top_k_accuracy(predictions: PredictionTable, k: int) -> float:
    """Return the fraction of images whose label is among the k most probable classes."""
    best = np.argsort(-predictions.probs, axis=1, kind="stable")[:, :k]
    return float((best == predictions.labels[:, None]).any(axis=1).mean())


def confusion(predictions: PredictionTable) -> NDArray[np.int64]:
    """Return the number of images with each label (row) and prediction (column), ``(K, K)``."""
    return confusion_matrix(
        predictions.labels, predictions.predicted, labels=np.arange(len(predictions.class_names))
    )


def wilson_interval(accuracy: float, num_images: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of an accuracy, in [0, 1].

    Wilson (1927), https://doi.org/10.1080/01621459.1927.10502953

    Raises:
        ValueError: There are no images, or the accuracy is not in [0, 1].
    """
    interval = binomtest(round(accuracy * num_images), num_images).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def fold_interval(scores: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % confidence interval of a cross-validated score, after Nadeau and Bengio.

    The training sets of the folds overlap, so their scores vary less than scores of independent
    experiments. The variance of the mean is therefore ``1 / k + 1 / (k - 1)`` times the variance of
    the scores, instead of ``1 / k`` (https://doi.org/10.1023/A:1024068626366, section 3).
    ``1 / (k - 1)`` is the ratio of test to training images. The interval is not clipped to [0, 1].

    Args:
        scores: Score of each of the k folds, averaged over the seeds.

    Raises:
        ValueError: There are fewer than two folds.
    """
    k = len(scores)
    half = float(t.ppf(0.975, k - 1)) * stdev(scores) * math.sqrt(1 / k + 1 / (k - 1))
    return mean(scores) - half, mean(scores) + half
