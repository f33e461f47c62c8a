from __future__ import annotations

import numpy as np
import pytest

from flowers.evaluation import fit_rejection, fit_temperature, reliability, with_temperature


def calibrated(count: int, num_classes: int = 4):
    """Return random probabilities, and labels sampled from them."""
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.full(num_classes, 0.4), count)
    labels = (probs.cumsum(axis=1) < rng.random((count, 1))).sum(axis=1)
    return probs, labels.clip(max=num_classes - 1)


def plain_ece(probs, labels, num_bins):
    """Return the calibration error as the sum in the paper, bin by bin."""
    confidence = probs.max(axis=1)
    correct = probs.argmax(axis=1) == labels
    total = 0.0
    for m in range(num_bins):
        in_bin = (confidence > m / num_bins) & (confidence <= (m + 1) / num_bins)
        if in_bin.any():
            gap = abs(correct[in_bin].mean() - confidence[in_bin].mean())
            total += in_bin.sum() / len(labels) * gap
    return total


def test_the_calibration_error_by_hand():
    # Bin (0, 0.5]: 0.5, incorrect. Bin (0.5, 1]: 0.6 correct, 0.8 incorrect, 1.0 correct.
    probs = np.array([[0.6, 0.4], [0.2, 0.8], [1.0, 0.0], [0.5, 0.5]])
    bins = reliability(probs, np.array([0, 0, 0, 1]), num_bins=2)
    assert bins.counts.tolist() == [1, 3]
    assert bins.confidence.tolist() == pytest.approx([0.5, 0.8])
    assert bins.accuracy.tolist() == pytest.approx([0.0, 2 / 3])
    assert bins.error == pytest.approx((1 * 0.5 + 3 * (0.8 - 2 / 3)) / 4)


@pytest.mark.parametrize("num_bins", [5, 10, 15])
def test_the_calibration_error_is_the_sum_in_the_paper(num_bins):
    probs, labels = calibrated(500)
    probs = with_temperature(probs, 0.6)
    error = reliability(probs, labels, num_bins=num_bins).error
    assert error == pytest.approx(plain_ece(probs, labels, num_bins))


def test_temperature_divides_the_logits():
    def softmax(logits):
        return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)

    logits = np.random.default_rng(0).normal(0, 3, (50, 5))
    assert with_temperature(softmax(logits), 2.5) == pytest.approx(softmax(logits / 2.5), abs=1e-9)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_fitted_temperature_restores_calibrated_probabilities(temperature):
    probs, labels = calibrated(20_000)
    distorted = with_temperature(probs, 1 / temperature)
    assert fit_temperature(distorted, labels) == pytest.approx(temperature, rel=0.05)
    restored = with_temperature(distorted, fit_temperature(distorted, labels))
    assert reliability(restored, labels).error < 0.01


def test_the_temperature_is_bounded_if_all_predictions_are_correct():
    probs = np.array([[0.9, 0.1], [0.2, 0.8]])
    assert 1 / 20 <= fit_temperature(probs, np.array([0, 1])) < 0.1


def test_the_threshold_answers_as_many_images_as_the_accuracy_allows():
    probs = np.array([[c, 1 - c] for c in (0.95, 0.9, 0.9, 0.8, 0.7, 0.6)])
    labels = np.array([0, 0, 0, 1, 0, 0])
    assert fit_rejection(probs, labels, accuracy=1.0) == (0.9, 0.5, 1.0)
    assert fit_rejection(probs, labels, accuracy=0.8) == (0.6, 1.0, pytest.approx(5 / 6))
    # One of the two images with 0.9 is incorrect, and neither can be answered alone.
    tied = np.array([0, 1, 0, 0, 0, 0])
    assert fit_rejection(probs, tied, accuracy=0.99).threshold == 0.95
    all_incorrect = np.ones(6, dtype=int)
    assert fit_rejection(probs, all_incorrect, accuracy=0.99) == (2.0, 0.0, 1.0)
