"""Select examples of predictions for a report."""

from collections import Counter

import numpy as np

from flowers.evaluation.predictions import PredictionTable


def worst_mistakes(predictions: PredictionTable, count: int) -> list[int]:
    """Return the positions of the most confident incorrect predictions."""
    order = np.argsort(-predictions.confidence, kind="stable")
    incorrect: list[int] = order[~predictions.correct[order]].tolist()
    return incorrect[:count]


def best_successes(predictions: PredictionTable, count: int) -> list[int]:
    """Return the positions of the most confident correct predictions, in turn from each class."""
    order = np.argsort(-predictions.confidence, kind="stable")
    correct = order[predictions.correct[order]]
    class_counts = Counter[int]()
    ranks = []
    for label in predictions.labels[correct].tolist():
        ranks.append(class_counts[label])
        class_counts[label] += 1
    return correct[np.argsort(ranks, kind="stable")][:count].tolist()
