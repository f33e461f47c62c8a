from __future__ import annotations

import numpy as np
import pytest

from flowers.evaluation.calibration import (
    fit_rejection,
    fit_temperature,
    reliability,
    with_temperature,
)


def calibrated(count: int, classes: int = 4, seed: int = 0):
    """Return probabilities that are right as often as they say, and labels drawn from them."""
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.full(classes, 0.4), count)
    labels = (probs.cumsum(axis=1) < rng.random((count, 1))).sum(axis=1)
    return probs, labels.clip(max=classes - 1)


def plain_ece(probs, labels, bins):
    """Return the calibration error as the paper's sum, bin after bin."""
    total = 0.0
    for m in range(bins):
        chosen = [i for i, row in enumerate(probs) if m / bins < max(row) <= (m + 1) / bins]
        if chosen:
            acc = sum(int(np.argmax(probs[i]) == labels[i]) for i in chosen) / len(chosen)
            conf = sum(max(probs[i]) for i in chosen) / len(chosen)
            total += len(chosen) / len(labels) * abs(acc - conf)
    return total


def test_the_calibration_error_by_hand():
    # Two bins: 0.6 and 0.8 (one of two right), 0.3 would need three classes; 1.0 right.
    probs = np.array([[0.6, 0.4], [0.2, 0.8], [1.0, 0.0], [0.5, 0.5]])
    found = reliability(probs, np.array([0, 0, 0, 1]), num_bins=2)
    assert found.counts.tolist() == [1, 3]
    assert found.confidence.tolist() == pytest.approx([0.5, 0.8])
    assert found.accuracy.tolist() == pytest.approx([0.0, 2 / 3])
    assert found.error == pytest.approx((1 * 0.5 + 3 * (0.8 - 2 / 3)) / 4)


@pytest.mark.parametrize("bins", [5, 10, 15])
def test_the_calibration_error_is_the_papers_sum(bins):
    probs, labels = calibrated(500)
    probs = with_temperature(probs, 0.6)
    assert reliability(probs, labels, num_bins=bins).error == pytest.approx(
        plain_ece(probs, labels, bins)
    )


def test_temperature_is_that_of_a_softmax_of_divided_logits():
    logits = np.random.default_rng(0).normal(0, 3, (50, 5))
    softmax = lambda z: np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)  # noqa: E731
    assert with_temperature(softmax(logits), 2.5) == pytest.approx(softmax(logits / 2.5), abs=1e-9)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_was_taken_away_is_found(temperature):
    probs, labels = calibrated(20_000)
    distorted = with_temperature(probs, 1 / temperature)
    assert fit_temperature(distorted, labels) == pytest.approx(temperature, rel=0.05)
    mended = with_temperature(distorted, fit_temperature(distorted, labels))
    assert reliability(mended, labels).error < 0.01


def test_predictions_that_are_all_right_get_a_bounded_temperature():
    probs = np.array([[0.9, 0.1], [0.2, 0.8]])
    assert 1 / 20 <= fit_temperature(probs, np.array([0, 1])) < 0.1


def test_the_threshold_answers_as_much_as_the_asked_accuracy_allows():
    probs = np.array([[c, 1 - c] for c in (0.95, 0.9, 0.9, 0.8, 0.7, 0.6)])
    labels = np.array([0, 0, 0, 1, 0, 0])
    assert fit_rejection(probs, labels, accuracy=1.0) == (0.9, 0.5, 1.0)
    assert fit_rejection(probs, labels, accuracy=0.8) == (0.6, 1.0, pytest.approx(5 / 6))
    tied = np.array(
        [0, 1, 0, 0, 0, 0]
    )  # one of the two images of 0.9 is wrong: neither can be answered alone
    assert fit_rejection(probs, tied, accuracy=0.99).threshold == 0.95
    assert fit_rejection(probs, 1 - labels * 0, accuracy=0.99) == (2.0, 0.0, 1.0)
