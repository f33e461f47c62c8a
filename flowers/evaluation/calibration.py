"""Calibration: reliability of the confidence, temperature scaling, and a rejection threshold."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from flowers.evaluation.predictions import PredictionTable

_TINY = np.finfo(np.float64).tiny  # the smallest number whose logarithm is finite


class Reliability(NamedTuple):
    """Mean confidence and accuracy of the predictions in M bins of confidence.

    Args:
        edges: Edges of the bins ``(M + 1,)``.
        counts: Number of images in each bin ``(M,)``.
        confidence: Mean confidence of each bin ``(M,)``; 0 for an empty bin.
        accuracy: Fraction of correct predictions in each bin ``(M,)``; 0 for an empty bin.
    """

    edges: NDArray[np.float64]
    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    @property
    def error(self) -> float:
        """The expected calibration error: mean ``|accuracy - confidence|``, weighted by count."""
        return float(np.average(abs(self.accuracy - self.confidence), weights=self.counts))

    def merged(self, min_count: int) -> "Reliability":
        """Merge neighbouring bins until each has at least ``min_count`` images, or one is left."""
        starts = [0]
        for start in range(1, len(self.counts)):
            below = self.counts[starts[-1] : start].sum()
            if min(below, self.counts[start:].sum()) >= min_count:
                starts.append(start)
        counts = np.add.reduceat(self.counts, starts)
        divisor = np.maximum(counts, 1)
        confidence = np.add.reduceat(self.confidence * self.counts, starts) / divisor
        accuracy = np.add.reduceat(self.accuracy * self.counts, starts) / divisor
        edges = np.append(self.edges[starts], self.edges[-1])
        return Reliability(edges, counts, confidence, accuracy)


class Rejection(NamedTuple):
    """A confidence threshold below which a prediction is rejected.

    Args:
        threshold: The smallest accepted confidence; a threshold above 1 rejects every prediction.
        coverage: Fraction of accepted predictions on the images that the threshold was fitted on.
        accuracy: Accuracy of the accepted predictions on these images; 1 if none is accepted.
    """

    threshold: float
    coverage: float
    accuracy: float


def reliability(predictions: PredictionTable, *, num_bins: int = 15) -> Reliability:
    """Return confidence and accuracy in bins of equal width.

    Guo et al. (2017), https://arxiv.org/abs/1706.04599

    Args:
        predictions: Predictions of labelled images.
        num_bins: Number of bins M.
    """
    edges = np.linspace(0, 1, num_bins + 1)
    bins = np.digitize(predictions.confidence, edges[1:-1], right=True)
    counts = np.bincount(bins, minlength=num_bins)
    divisor = np.maximum(counts, 1)
    confidence = np.bincount(bins, weights=predictions.confidence, minlength=num_bins) / divisor
    accuracy = np.bincount(bins, weights=predictions.correct, minlength=num_bins) / divisor
    return Reliability(edges, counts, confidence, accuracy)


def fit_temperature(predictions: PredictionTable) -> float:
    """Return the temperature with the smallest log loss; above 1 for an overconfident network.

    Dividing the logits by the temperature changes the confidence, but no predicted class
    (https://arxiv.org/abs/1706.04599, section 4.2). The temperature is limited to [1/20, 20]. It is
    1 if all predictions are correct: the log loss would be smallest at 0, which makes every
    prediction certain.

    Args:
        predictions: Predictions of labelled images that the network was not trained on.
    """
    if predictions.correct.all():
        return 1.0
    rows = np.arange(len(predictions.labels))

    def loss(log_temperature: float) -> float:
        scaled = with_temperature(predictions, float(np.exp(log_temperature)))
        return float(-np.log(np.maximum(scaled.probs[rows, scaled.labels], _TINY)).mean())

    bound = float(np.log(20))
    return float(np.exp(minimize_scalar(loss, bounds=(-bound, bound), method="bounded").x))


def with_temperature(predictions: PredictionTable, temperature: float) -> PredictionTable:
    """Return the predictions after dividing the logits by the temperature."""
    logits = np.log(np.maximum(predictions.probs, _TINY))
    return replace(predictions, probs=softmax(logits / temperature, axis=1))


def fit_rejection(predictions: PredictionTable, *, accuracy: float) -> Rejection:
    """Return the smallest confidence threshold whose accepted predictions reach an accuracy.

    Args:
        predictions: Predictions of labelled images that the network was not trained on.
        accuracy: Required accuracy of the accepted predictions, in [0, 1].
    """
    order = np.argsort(-predictions.confidence, kind="stable")
    confidence = predictions.confidence[order]
    num_accepted = np.arange(1, len(order) + 1)
    accuracies = predictions.correct[order].cumsum() / num_accepted
    # Predictions of equal confidence are accepted or rejected together.
    last_of_equals = np.append(np.diff(confidence) != 0, True)
    candidates = np.flatnonzero((accuracies >= accuracy) & last_of_equals)
    if len(candidates) == 0:
        return Rejection(threshold=2.0, coverage=0.0, accuracy=1.0)
    best = candidates[-1]
    coverage = num_accepted[best] / len(order)
    return Rejection(float(confidence[best]), float(coverage), float(accuracies[best]))
