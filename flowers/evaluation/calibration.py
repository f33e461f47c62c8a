"""Calibration: how well probabilities match accuracy, temperature scaling, and rejection."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TINY = np.finfo(np.float64).tiny  # the smallest number whose logarithm is finite


class Reliability(NamedTuple):
    """Mean confidence and accuracy of the predictions in M bins of confidence.

    Args:
        edges: Edges of the bins ``(M + 1,)``.
        counts: Number of images in each bin ``(M,)``.
        confidence: Their mean confidence ``(M,)``; 0 in an empty bin.
        accuracy: The fraction of them that is correct ``(M,)``; 0 in an empty bin.
    """

    edges: NDArray[np.float64]
    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    @property
    def error(self) -> float:
        """The expected calibration error: mean gap between accuracy and confidence per image."""
        gaps = np.abs(self.accuracy - self.confidence)
        return float((gaps * self.counts).sum() / self.counts.sum())


class Rejection(NamedTuple):
    """A confidence threshold below which a prediction is rejected.

    Args:
        threshold: The smallest confidence that is answered; above 1 everything is rejected.
        coverage: Fraction of images answered, where the threshold was chosen.
        accuracy: Fraction of the answers that is correct there.
    """

    threshold: float
    coverage: float
    accuracy: float


def reliability(
    probs: NDArray[np.float64], labels: NDArray[np.int64], *, num_bins: int = 15
) -> Reliability:
    """Return confidence and accuracy in bins of equal width.

    Guo et al. (2017), https://arxiv.org/abs/1706.04599

    Args:
        probs: Probabilities ``(N, K)``; the largest of an image is its confidence.
        labels: Integers ``(N,)``.
        num_bins: Number of bins M.
    """
    confidence = probs.max(axis=1)
    correct = probs.argmax(axis=1) == labels
    edges = np.linspace(0, 1, num_bins + 1)
    bins = np.clip(np.digitize(confidence, edges[1:-1], right=True), 0, num_bins - 1)
    counts = np.bincount(bins, minlength=num_bins)
    divisor = np.maximum(counts, 1)
    mean_confidence = np.bincount(bins, weights=confidence, minlength=num_bins) / divisor
    accuracy = np.bincount(bins, weights=correct, minlength=num_bins) / divisor
    return Reliability(edges, counts, mean_confidence, accuracy)


def fit_temperature(probs: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Return the temperature with the smallest log loss; above 1 for an overconfident network.

    Dividing the logits by it changes no prediction, only its confidence
    (https://arxiv.org/abs/1706.04599, section 4.2). The temperature is limited to [1/20, 20]: if
    all predictions are correct, the optimum is 0.

    Args:
        probs: Probabilities ``(N, K)`` of images that the network was not trained on.
        labels: Integers ``(N,)``.
    """
    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        scaled = with_temperature(probs, float(np.exp(log_temperature)))
        return float(-np.log(np.maximum(scaled[rows, labels], _TINY)).mean())

    bound = float(np.log(20))
    return float(np.exp(minimize_scalar(loss, bounds=(-bound, bound), method="bounded").x))


def with_temperature(probs: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Return the probabilities ``(N, K)`` after dividing the logits by the temperature."""
    scaled: NDArray[np.float64] = softmax(np.log(np.maximum(probs, _TINY)) / temperature, axis=1)
    return scaled


def fit_rejection(
    probs: NDArray[np.float64], labels: NDArray[np.int64], *, accuracy: float
) -> Rejection:
    """Return the smallest confidence threshold with which the answers have the given accuracy.

    Args:
        probs: Probabilities ``(N, K)`` of images that the network was not trained on.
        labels: Integers ``(N,)``.
        accuracy: Required fraction of correct answers, in [0, 1].
    """
    confidence = probs.max(axis=1)
    correct = probs.argmax(axis=1) == labels
    order = np.argsort(-confidence, kind="stable")
    answered = np.arange(1, len(order) + 1)
    accuracies = correct[order].cumsum() / answered
    # Images of equal confidence are answered together or not at all.
    last_of_equals = np.append(np.diff(confidence[order]) != 0, True)
    candidates = np.flatnonzero((accuracies >= accuracy) & last_of_equals)
    if len(candidates) == 0:
        return Rejection(threshold=2.0, coverage=0.0, accuracy=1.0)
    best = candidates[-1]
    return Rejection(
        threshold=float(confidence[order[best]]),
        coverage=float(answered[best] / len(order)),
        accuracy=float(accuracies[best]),
    )
