from __future__ import annotations

import numpy as np

from flowers.evaluation import PredictionTable, best_successes, worst_mistakes

# Confidence and whether the prediction is correct.
OUTCOMES = [(0.6, True), (0.9, False), (0.8, True), (0.7, False), (0.95, True), (0.99, True)]


def table() -> PredictionTable:
    """Return the outcomes as predictions; the last image is the only one of class b."""
    labels = np.array([0, 0, 0, 0, 0, 1])
    probs = np.zeros((6, 2))
    for row, (confidence, is_correct) in enumerate(OUTCOMES):
        predicted = labels[row] if is_correct else 1 - labels[row]
        probs[row, predicted] = confidence
        probs[row, 1 - predicted] = 1 - confidence
    return PredictionTable(("a", "b"), tuple("012345"), labels, probs)


def test_the_most_confident_mistakes_come_first():
    assert worst_mistakes(table(), 8) == [1, 3]
    assert worst_mistakes(table(), 1) == [1]


def test_successes_alternate_between_the_classes():
    assert best_successes(table(), 8) == [5, 4, 2, 0]
    assert best_successes(table(), 2) == [5, 4]
