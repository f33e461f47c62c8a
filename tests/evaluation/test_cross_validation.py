from __future__ import annotations

from statistics import mean, stdev

import numpy as np
import pytest

from flowers.evaluation import PredictionTable, confusion, scores, summary_files
from flowers.evaluation.cross_validation import pool, summarize
from flowers.evaluation.metrics import fold_interval


def table(labels, probs, *, prefix="") -> PredictionTable:
    paths = tuple(f"{prefix}{i}.jpg" for i in range(len(labels)))
    return PredictionTable(("a", "b", "c"), paths, np.array(labels), probs)


def one_hot(predicted):
    return np.eye(3)[predicted] * 0.7 + 0.1


def example_runs():
    rng = np.random.default_rng(0)
    runs = {}
    for seed in range(2):
        for fold in range(3):
            labels = rng.integers(0, 3, 40)
            runs[seed, fold] = table(labels, rng.dirichlet([1, 1, 1], 40), prefix=f"{fold}/")
    return runs


def test_the_summary_is_over_runs_and_its_interval_over_folds():
    runs = example_runs()
    accuracy = {key: scores(run)["accuracy"] for key, run in runs.items()}
    summary = summarize(runs)["accuracy"]
    assert summary.mean == pytest.approx(mean(accuracy.values()))
    assert summary.sd == pytest.approx(stdev(accuracy.values()))
    by_fold = [(accuracy[0, fold] + accuracy[1, fold]) / 2 for fold in range(3)]
    assert (summary.low, summary.high) == pytest.approx(fold_interval(by_fold))


def test_the_interval_of_a_fraction_ends_at_0_and_1():
    runs = {
        (0, 0): table([0, 1, 2], one_hot([0, 1, 2])),
        (0, 1): table([0, 1, 2], one_hot([1, 1, 2])),
    }
    assert summarize(runs)["accuracy"][2:] == (0, 1)
    assert summarize(runs)["log loss"].high > 1


def test_the_pooled_matrix_and_the_table_hold_every_prediction():
    runs = example_runs()
    counts = confusion(pool(runs))
    assert counts.sum() == 240
    text = summary_files(runs)["summary.md"]
    assert "3 folds, 2 seeds, 240 out-of-fold predictions." in text
    assert f"| accuracy | {summarize(runs)['accuracy'].mean:.4f} |" in text
    row = next(line for line in text.splitlines() if line.startswith("| b |"))
    assert [int(cell) for cell in row.split("|")[2:-1]] == counts[1].tolist()


def test_folds_that_share_an_image_or_seeds_of_other_images_are_refused():
    runs = example_runs()
    with pytest.raises(ValueError, match=r"seed 0: .* got 120 predictions of 80 images"):
        pool(runs | {(0, 2): runs[0, 1]})
    del runs[1, 2]
    expected = r"seed 1: .* got 80 predictions of 80 images; the first seed has 120"
    with pytest.raises(ValueError, match=expected):
        pool(runs)
