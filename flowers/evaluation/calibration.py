"""Whether a probability of 90 % is right nine times in ten, and what to do where it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TINY = np.finfo(np.float64).tiny  # whose logarithm is finite


class Reliability(NamedTuple):
    """How often predictions of like confidence are right.

    Args:
        edges: Edges of the M bins of confidence ``(M + 1,)``.
        counts: Images in each bin ``(M,)``.
        confidence: Their mean confidence ``(M,)``; 0 in an empty bin.
        accuracy: The share of them that is right ``(M,)``; 0 in an empty bin.
    """

    edges: NDArray[np.float64]
    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    @property
    def error(self) -> float:
        """The expected calibration error: the mean distance of the two, over the images."""
        return float(
            (np.abs(self.accuracy - self.confidence) * self.counts).sum() / self.counts.sum()
        )


class Rejection(NamedTuple):
    """When to give no answer.

    Args:
        threshold: Smallest confidence that is answered; above 1 nothing is.
        coverage: Share of the images that was answered where it was chosen.
        accuracy: Share of the answers that was right there.
    """

    threshold: float
    coverage: float
    accuracy: float


def reliability(
    probs: NDArray[np.float64], labels: NDArray[np.int64], *, num_bins: int = 15
) -> Reliability:
    """Return confidence and accuracy in bins of equal width, after Guo et al. (https://arxiv.org/abs/1706.04599).

    Args:
        probs: Probabilities ``(N, K)``; the largest of an image is its confidence.
        labels: Integers ``(N,)``.
        num_bins: Number of bins M.
    """
    confidence, right = probs.max(axis=1), probs.argmax(axis=1) == labels
    edges = np.linspace(0, 1, num_bins + 1)
    bins = np.clip(np.digitize(confidence, edges[1:-1], right=True), 0, num_bins - 1)
    counts = np.bincount(bins, minlength=num_bins)
    divisor = np.maximum(counts, 1)
    means = [
        np.bincount(bins, weights=values, minlength=num_bins) / divisor
        for values in (confidence, right)
    ]
    return Reliability(edges, counts, *means)


def fit_temperature(probs: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Return the temperature that makes the log loss smallest: above 1 for a network that is too sure of itself.

    Dividing the logits by it changes no prediction, only its confidence
    (https://arxiv.org/abs/1706.04599, section 4.2). It is kept between 1/20 and 20, since images
    that are all predicted rightly would ask for 0.

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
    """Return the probabilities ``(N, K)`` that logits divided by the temperature would have given."""
    scaled: NDArray[np.float64] = softmax(np.log(np.maximum(probs, _TINY)) / temperature, axis=1)
    return scaled


def fit_rejection(
    probs: NDArray[np.float64], labels: NDArray[np.int64], *, accuracy: float
) -> Rejection:
    """Return the smallest confidence above which the answers are as accurate as asked for, so that most are answered.

    Args:
        probs: Probabilities ``(N, K)`` of images that the network was not trained on.
        labels: Integers ``(N,)``.
        accuracy: Share of the answers that has to be right.
    """
    confidence, right = probs.max(axis=1), probs.argmax(axis=1) == labels
    order = np.argsort(-confidence, kind="stable")
    answered = np.arange(1, len(order) + 1)
    accuracies = right[order].cumsum() / answered
    # Images of one confidence are answered together or not at all.
    last_of_equals = np.append(np.diff(confidence[order]) != 0, True)
    enough = np.flatnonzero((accuracies >= accuracy) & last_of_equals)
    if len(enough) == 0:
        return Rejection(2.0, 0.0, 1.0)
    best = enough[-1]
    return Rejection(
        float(confidence[order[best]]), float(answered[best] / len(order)), float(accuracies[best])
    )
