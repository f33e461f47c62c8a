from __future__ import annotations

import numpy as np
import pytest

from flowers.evaluation import (
    PredictionTable,
    fit_rejection,
    fit_temperature,
    reliability,
    with_temperature,
)


def table(probs, labels) -> PredictionTable:
    names = tuple(map(str, range(probs.shape[1])))
    return PredictionTable(names, tuple(map(str, range(len(probs)))), labels, probs)


def calibrated(count: int, num_classes: int = 4) -> PredictionTable:
    """Return random probabilities, and labels sampled from them."""
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.full(num_classes, 0.4), count)
    labels = (probs.cumsum(axis=1) < rng.random((count, 1))).sum(axis=1)
    return table(probs, labels.clip(max=num_classes - 1))


def plain_ece(predictions, num_bins):
    """Return the calibration error as the sum in the paper, bin by bin."""
    confidence = predictions.probs.max(axis=1)
    correct = predictions.probs.argmax(axis=1) == predictions.labels
    total = 0.0
    for m in range(num_bins):
        in_bin = (confidence > m / num_bins) & (confidence <= (m + 1) / num_bins)
        if in_bin.any():
            gap = abs(correct[in_bin].mean() - confidence[in_bin].mean())
            total += in_bin.sum() / len(correct) * gap
    return total


def test_the_calibration_error_by_hand():
    # Bin (0, 0.5]: 0.5, incorrect. Bin (0.5, 1]: 0.6 correct, 0.8 incorrect, 1.0 correct.
    probs = np.array([[0.6, 0.4], [0.2, 0.8], [1.0, 0.0], [0.5, 0.5]])
    bins = reliability(table(probs, np.array([0, 0, 0, 1])), num_bins=2)
    assert bins.counts.tolist() == [1, 3]
    assert bins.confidence.tolist() == pytest.approx([0.5, 0.8])
    assert bins.accuracy.tolist() == pytest.approx([0.0, 2 / 3])
    assert bins.error == pytest.approx((1 * 0.5 + 3 * (0.8 - 2 / 3)) / 4)


def test_merged_bins_have_enough_images_and_the_same_sums():
    for count in (3, 40, 500):
        bins = reliability(calibrated(count), num_bins=15)
        merged = bins.merged(10)
        assert merged.counts.min() >= min(10, count)
        assert set(merged.edges) <= set(bins.edges)
        assert merged.counts.sum() == count
        assert merged.counts @ merged.accuracy == pytest.approx(bins.counts @ bins.accuracy)
        assert merged.counts @ merged.confidence == pytest.approx(bins.counts @ bins.confidence)
    assert len(merged.counts) > 5


@pytest.mark.parametrize("num_bins", [5, 10, 15])
def test_the_calibration_error_is_the_sum_in_the_paper(num_bins):
    predictions = with_temperature(calibrated(500), 0.6)
    error = reliability(predictions, num_bins=num_bins).error
    assert error == pytest.approx(plain_ece(predictions, num_bins))


def test_temperature_divides_the_logits():
    def softmax(logits):
        return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)

    logits = np.random.default_rng(0).normal(0, 3, (50, 5))
    predictions = table(softmax(logits), np.zeros(50, dtype=int))
    probs = with_temperature(predictions, 2.5).probs
    assert probs == pytest.approx(softmax(logits / 2.5), abs=1e-9)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_fitted_temperature_restores_calibrated_probabilities(temperature):
    distorted = with_temperature(calibrated(20_000), 1 / temperature)
    assert fit_temperature(distorted) == pytest.approx(temperature, rel=0.05)
    restored = with_temperature(distorted, fit_temperature(distorted))
    assert reliability(restored).error < 0.01


def test_the_temperature_is_one_if_all_predictions_are_correct():
    probs = np.array([[0.9, 0.1], [0.2, 0.8]])
    assert fit_temperature(table(probs, np.array([0, 1]))) == 1


def test_the_threshold_answers_as_many_images_as_the_accuracy_allows():
    probs = np.array([[c, 1 - c] for c in (0.95, 0.9, 0.9, 0.8, 0.7, 0.6)])
    predictions = table(probs, np.array([0, 0, 0, 1, 0, 0]))
    assert fit_rejection(predictions, accuracy=1.0) == (0.9, 0.5, 1.0)
    assert fit_rejection(predictions, accuracy=0.8) == (0.6, 1.0, pytest.approx(5 / 6))
    # Of the two images with 0.9 one is incorrect; no threshold separates them.
    tied = table(probs, np.array([0, 1, 0, 0, 0, 0]))
    assert fit_rejection(tied, accuracy=0.99).threshold == 0.95
    all_incorrect = table(probs, np.ones(6, dtype=int))
    assert fit_rejection(all_incorrect, accuracy=0.99) == (2.0, 0.0, 1.0)
