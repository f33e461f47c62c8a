from __future__ import annotations

import math
from statistics import mean, stdev

import numpy as np
import pytest

from flowers.evaluation import (
    PredictionTable,
    confusion,
    fold_interval,
    label_issues,
    pool,
    pooled_confusion,
    read_predictions,
    scores,
    summarize,
    summary_markdown,
)

NAMES = ("a", "b", "c")


def predictions(labels, probs, names=NAMES, *, prefix="") -> PredictionTable:
    return PredictionTable(
        names,
        tuple(f"{prefix}{i}.jpg" for i in range(len(labels))),
        np.array(labels),
        np.array(probs, dtype=float),
    )


def one_hot(*predicted: int):
    return np.eye(3)[list(predicted)] * 0.7 + 0.1


def test_scores_are_those_counted_by_hand():
    found = scores(predictions([0, 0, 0, 1, 1, 2], one_hot(0, 0, 1, 1, 0, 2)))
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert found["a/precision"] == pytest.approx(2 / 3)
    assert found["a/recall"] == pytest.approx(2 / 3)
    assert found["b/F1"] == pytest.approx(1 / 2)
    assert found["c/recall"] == 1
    assert found["balanced accuracy"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert found["macro-F1"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert found["log loss"] == pytest.approx(-(4 * math.log(0.8) + 2 * math.log(0.1)) / 6)


def test_a_class_without_images_counts_in_no_mean():
    found = scores(predictions([0, 0, 1], one_hot(0, 2, 1)))
    assert found["balanced accuracy"] == pytest.approx(0.75)
    assert found["c/recall"] == found["c/precision"] == 0


def test_the_confusion_matrix_has_labels_in_rows():
    assert confusion(predictions([0, 0, 2], one_hot(1, 0, 0))).tolist() == [
        [1, 1, 0],
        [0, 0, 0],
        [1, 0, 0],
    ]


def test_the_interval_of_folds_is_the_published_formula():
    # Nadeau and Bengio's corrected variance by hand: t(0.975, 4) = 2.7764, s = 0.0158114, sqrt(1/5
    # + 1/4) = 0.67082.
    low, high = fold_interval([0.88, 0.9, 0.89, 0.92, 0.91])
    assert (low, high) == pytest.approx((0.9 - 0.029448, 0.9 + 0.029448), abs=1e-5)
    with pytest.raises(ValueError, match="at least 2 folds"):
        fold_interval([0.9])


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    # Independent folds are the easy case, so 95 % is a lower bound here.
    rng = np.random.default_rng(0)
    hits = [
        low <= 0.5 <= high
        for low, high in (fold_interval(rng.normal(0.5, 0.1, 5).tolist()) for _ in range(400))
    ]
    assert mean(hits) > 0.95


def example_runs():
    rng = np.random.default_rng(0)
    return {
        (seed, fold): predictions(
            rng.integers(0, 3, 40), rng.dirichlet([1, 1, 1], 40), prefix=f"{fold}/"
        )
        for seed in range(2)
        for fold in range(3)
    }


def test_the_summary_is_over_runs_and_its_interval_over_folds():
    runs = example_runs()
    accuracy = {key: scores(run)["accuracy"] for key, run in runs.items()}
    found = summarize(runs)["accuracy"]
    assert found.mean == pytest.approx(mean(accuracy.values()))
    assert found.sd == pytest.approx(stdev(accuracy.values()))
    by_fold = [(accuracy[0, fold] + accuracy[1, fold]) / 2 for fold in range(3)]
    assert (found.low, found.high) == pytest.approx(fold_interval(by_fold))


def test_a_share_has_no_interval_beyond_0_and_1():
    runs = {
        (0, fold): predictions([0, 1, 2], one_hot(*predicted))
        for fold, predicted in enumerate(([0, 1, 2], [1, 1, 2]))
    }
    assert summarize(runs)["accuracy"][2:] == (0, 1)
    assert summarize(runs)["log loss"].high > 1


def test_the_pooled_matrix_and_the_table_hold_every_prediction():
    runs = example_runs()
    assert pooled_confusion(runs).sum() == 240
    text = summary_markdown(runs)
    assert "3 folds, 2 seeds, 240 out-of-fold predictions." in text
    assert f"| accuracy | {summarize(runs)['accuracy'].mean:.4f} |" in text
    row = next(line for line in text.splitlines() if line.startswith("| b |"))
    assert [int(cell) for cell in row.split("|")[2:-1]] == pooled_confusion(runs)[1].tolist()


def test_folds_that_share_an_image_or_seeds_of_other_images_are_refused():
    runs = example_runs()
    with pytest.raises(ValueError, match=r"seed 0: .* got 120 predictions of 80 images"):
        pool(runs | {(0, 2): runs[0, 1]})
    with pytest.raises(
        ValueError, match=r"seed 1: .* got 80 predictions of 80 images, 120 for the first seed"
    ):
        pool({key: run for key, run in runs.items() if key != (1, 2)})


def write(tmp_path, text):
    (tmp_path / "p.csv").write_text(text)
    return tmp_path / "p.csv"


def test_predictions_of_several_seeds_are_averaged(tmp_path):
    rows = "path,label,predicted,rejected,error,a,b\nx.jpg,a,a,,,0.9,0.1\ny.jpg,b,a,,,0.6,0.4\nx.jpg,a,b,,,0.3,0.7\n"
    found = read_predictions(write(tmp_path, rows))
    assert (found.class_names, found.paths, found.labels.tolist()) == (
        ("a", "b"),
        ("x.jpg", "y.jpg"),
        [0, 1],
    )
    assert found.probs.tolist() == [[pytest.approx(0.6), pytest.approx(0.4)], [0.6, 0.4]]


@pytest.mark.parametrize("text", ["", "path,label\nx,a\n", "path,label,predicted,a,b\n"])
def test_another_file_is_refused(tmp_path, text):
    with pytest.raises(
        ValueError, match="expected the columns path, label, predicted, rejected, error and the"
    ):
        read_predictions(write(tmp_path, text))


def test_a_label_without_a_column_is_named(tmp_path):
    with pytest.raises(ValueError, match="expected a column for each label, got none for emu"):
        read_predictions(
            write(tmp_path, "path,label,predicted,rejected,error,a,b\nx,emu,a,,,1,0\n")
        )


def test_planted_label_errors_come_first():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 300)
    probs = rng.dirichlet([1, 1, 1], 300) * 0.3 + np.eye(3)[truth] * 0.7
    labels = truth.copy()
    labels[:10] = (truth[:10] + 1) % 3
    issues = label_issues(predictions(labels, probs))
    assert {issue.path for issue in issues[:10]} == {f"{i}.jpg" for i in range(10)}
    assert all(issue.suggested == NAMES[truth[int(issue.path[:-4])]] for issue in issues[:10])
    margins = [issue.label_prob - issue.suggested_prob for issue in issues]
    assert margins == sorted(margins)


def test_an_image_that_no_class_is_sure_of_is_no_issue():
    probs = [[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.1, 0.9], [0.45, 0.55]]
    assert label_issues(predictions([0, 0, 1, 1, 0], probs, ("a", "b"))) == []
    surer = [*probs[:4], [0.05, 0.95]]
    assert [
        issue[:3] for issue in label_issues(predictions([0, 0, 1, 1, 0], surer, ("a", "b")))
    ] == [("4.jpg", "a", "b")]
