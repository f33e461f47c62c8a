"""Numbers about predictions: scikit-learn's metrics, and the intervals of a measured accuracy."""

from __future__ import annotations

import math
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import binomtest, t
from sklearn.metrics import confusion_matrix, log_loss, precision_recall_fscore_support

from flowers.evaluation.calibration import reliability

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from flowers.evaluation.predictions import PredictionTable


def class_metrics(predictions: PredictionTable) -> dict[str, dict[str, float]]:
    """Return precision, recall, F1 and support (number of images) of each class.

    The precision of a class that is never predicted is 0.
    """
    classes = np.arange(len(predictions.class_names))
    precision, recall, f1, support = precision_recall_fscore_support(
        predictions.labels, predictions.predicted, labels=classes, zero_division=0
    )
    metrics = {}
    for label, name in enumerate(predictions.class_names):
        metrics[name] = {
            "precision": float(precision[label]),
            "recall": float(recall[label]),
            "F1": float(f1[label]),
            "support": int(support[label]),
        }
    return metrics


def scores(predictions: PredictionTable) -> dict[str, float]:
    """Return accuracy, balanced accuracy, macro-F1, log loss, and the scores of each class.

    The log loss is in nats. The scores of a class are ``<class>/precision``, ``<class>/recall`` and
    ``<class>/F1``. A class without images is left out of the means.
    """
    by_class = class_metrics(predictions)
    present = [values for values in by_class.values() if values["support"]]
    # In predictions.csv the probabilities are rounded, so their sum is not exactly 1.
    probs = predictions.probs / predictions.probs.sum(axis=1, keepdims=True)
    loss = log_loss(predictions.labels, probs, labels=np.arange(probs.shape[1]))
    values = {
        "accuracy": float(predictions.correct.mean()),
        "balanced accuracy": float(np.mean([values["recall"] for values in present])),
        "macro-F1": float(np.mean([values["F1"] for values in present])),
        "log loss": float(loss),
    }
    for name, metrics in by_class.items():
        for key in ("precision", "recall", "F1"):
            values[f"{name}/{key}"] = metrics[key]
    return values


def overall_metrics(predictions: PredictionTable) -> dict[str, Any]:
    """Return the scores over all classes under the names that the JSON reports use."""
    values = scores(predictions)
    correct = int(predictions.correct.sum())
    return {
        "accuracy": values["accuracy"],
        "accuracy_interval_95": list(wilson_interval(correct, len(predictions.labels))),
        "macro_f1": values["macro-F1"],
        "balanced_accuracy": values["balanced accuracy"],
        "log_loss": values["log loss"],
        "ece": reliability(predictions.probs, predictions.labels).error,
    }


def top_k_accuracy(predictions: PredictionTable, k: int) -> float:
    """Return the fraction of images whose label is among the k most probable classes."""
    best = np.argsort(-predictions.probs, axis=1, kind="stable")[:, :k]
    return float((best == predictions.labels[:, None]).any(axis=1).mean())


def confusion(predictions: PredictionTable) -> NDArray[np.int64]:
    """Return the number of images with each label (row) and prediction (column), ``(K, K)``."""
    classes = np.arange(len(predictions.class_names))
    counts: NDArray[np.int64] = confusion_matrix(
        predictions.labels, predictions.predicted, labels=classes
    )
    return counts


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of a fraction, in [0, 1].

    Wilson (1927), https://doi.org/10.1080/01621459.1927.10502953

    Raises:
        ValueError: There are no trials, or more successes than trials.
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(
            f"expected 0 to trials successes in at least one trial, got {successes} in {trials}"
        )
    interval = binomtest(successes, trials).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def fold_interval(scores: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % confidence interval of a cross-validated score, after Nadeau and Bengio.

    The training sets of the folds overlap, so the folds differ less than independent experiments
    would. The variance of their mean is therefore corrected to ``1 / k + 1 / (k - 1)`` times the
    variance of the folds, instead of ``1 / k`` (https://doi.org/10.1023/A:1024068626366, section 3;
    ``1 / (k - 1)`` is the ratio of test to training images). The interval is not clipped to [0, 1].

    Args:
        scores: Score of each of the k folds, averaged over the seeds.

    Raises:
        ValueError: There are fewer than two folds.
    """
    k = len(scores)
    if k < 2:
        raise ValueError(f"expected the scores of at least 2 folds, got {k}")
    half = float(t.ppf(0.975, k - 1)) * stdev(scores) * math.sqrt(1 / k + 1 / (k - 1))
    return mean(scores) - half, mean(scores) + half
