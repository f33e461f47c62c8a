from __future__ import annotations

import math
from statistics import mean

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, classification_report
from torchmetrics.functional.classification import multiclass_f1_score

from flowers.evaluation import PredictionTable, confusion, scores, wilson_interval
from flowers.evaluation.calibration import reliability
from flowers.evaluation.metrics import (
    class_metrics,
    fold_interval,
    overall_metrics,
    top_k_accuracy,
)

NAMES = ("a", "b", "c")


def table(labels, predicted) -> PredictionTable:
    """Return predictions of three classes with probability 0.8 for the predicted one."""
    probs = np.eye(3)[predicted] * 0.7 + 0.1
    paths = tuple(f"{i}.jpg" for i in range(len(labels)))
    return PredictionTable(NAMES, paths, np.array(labels), probs)


def random_table(num_classes: int, count: int = 300) -> PredictionTable:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, num_classes, count)
    probs = rng.dirichlet(np.ones(num_classes), count) * 0.6 + np.eye(num_classes)[labels] * 0.4
    names = tuple(f"class {k}" for k in range(num_classes))
    return PredictionTable(names, tuple(map(str, range(count))), labels, probs)


def test_scores_are_those_counted_by_hand():
    values = scores(table([0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 0, 2]))
    assert values["accuracy"] == pytest.approx(4 / 6)
    assert values["a/precision"] == pytest.approx(2 / 3)
    assert values["a/recall"] == pytest.approx(2 / 3)
    assert values["b/F1"] == pytest.approx(1 / 2)
    assert values["c/recall"] == 1
    assert values["balanced accuracy"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert values["macro-F1"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert values["log loss"] == pytest.approx(-(4 * math.log(0.8) + 2 * math.log(0.1)) / 6)


@pytest.mark.parametrize("predicted", [[0, 2, 1], [0, 0, 0], [0, 0, 1]])
def test_a_class_without_images_counts_as_in_torchmetrics(predicted):
    labels = [0, 0, 1]
    values = scores(table(labels, predicted))
    assert values["c/recall"] == values["c/precision"] == 0
    recalls = [values["a/recall"], values["b/recall"]]
    assert values["balanced accuracy"] == pytest.approx(np.mean(recalls))
    expected = multiclass_f1_score(torch.tensor(predicted), torch.tensor(labels), 3, "macro")
    assert values["macro-F1"] == pytest.approx(float(expected))


def test_the_metrics_are_those_of_scikit_learn():
    predictions = random_table(5)
    labels = predictions.labels
    predicted = predictions.probs.argmax(axis=1)
    expected = classification_report(
        labels, predicted, target_names=predictions.class_names, output_dict=True
    )
    metrics = class_metrics(predictions)
    assert list(metrics) == list(predictions.class_names)
    for name, values in metrics.items():
        assert values["precision"] == pytest.approx(expected[name]["precision"])
        assert values["recall"] == pytest.approx(expected[name]["recall"])
        assert values["F1"] == pytest.approx(expected[name]["f1-score"])
        assert values["support"] == expected[name]["support"]
    overall = overall_metrics(predictions)
    assert overall["macro_f1"] == pytest.approx(expected["macro avg"]["f1-score"])
    assert overall["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert overall["accuracy"] == pytest.approx(expected["accuracy"])
    assert overall["ece"] == reliability(predictions).error


def test_top_k_accuracy_counts_labels_among_the_k_best_classes():
    predictions = random_table(8)
    best = np.argsort(-predictions.probs, axis=1)[:, :5]
    hits = [label in row for label, row in zip(predictions.labels, best, strict=True)]
    assert top_k_accuracy(predictions, 5) == np.mean(hits)
    assert top_k_accuracy(predictions, 1) == predictions.correct.mean()


def test_the_confusion_matrix_has_labels_in_rows():
    counts = confusion(table([0, 0, 2], [1, 0, 0]))
    assert counts.tolist() == [[1, 1, 0], [0, 0, 0], [1, 0, 0]]


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    # Newcombe (1998, Statistics in Medicine 17, 857-872), table I, method 3.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_wilson_interval_is_the_published_one(successes, trials, low, high):
    assert wilson_interval(successes / trials, trials) == pytest.approx((low, high), abs=5e-5)
    mirrored = wilson_interval(1 - successes / trials, trials)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=5e-5)


@pytest.mark.parametrize(("accuracy", "num_images"), [(0.0, 0), (1.5, 2), (-0.5, 2)])
def test_impossible_accuracies_are_refused(accuracy, num_images):
    with pytest.raises(ValueError, match="must"):
        wilson_interval(accuracy, num_images)


def test_the_interval_of_folds_is_the_published_formula():
    # Nadeau and Bengio's corrected variance by hand: t(0.975, 4) = 2.7764, s = 0.0158114,
    # sqrt(1/5 + 1/4) = 0.67082.
    low, high = fold_interval([0.88, 0.9, 0.89, 0.92, 0.91])
    assert (low, high) == pytest.approx((0.9 - 0.029448, 0.9 + 0.029448), abs=1e-5)
    with pytest.raises(ValueError, match="at least two data points"):
        fold_interval([0.9])


def test_the_interval_of_folds_covers_the_mean_at_least_as_often_as_stated():
    # Independent folds are the easy case, so 95 % is a lower bound here.
    rng = np.random.default_rng(0)
    hits = []
    for _ in range(400):
        low, high = fold_interval(rng.normal(0.5, 0.1, 5).tolist())
        hits.append(low <= 0.5 <= high)
    assert mean(hits) > 0.95
