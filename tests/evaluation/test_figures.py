from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from flowers.evaluation import (
    PredictionTable,
    confusion_figure,
    figure_bytes,
    gallery_figure,
    history_figure,
    reliability,
)
from flowers.evaluation.figures import (
    confidence_figure,
    overlay_figure,
    precision_recall_figure,
    reliability_figure,
    roc_figure,
)
from flowers.evaluation.training_curves import Curve

HOSTILE = ("$\\frac{$", "_hidden", "a$b$c", "x" * 200, "\udcff.jpg")
CURVE = Curve(np.array([1.0, 2.0]), np.array([0.5, 0.25]))
ONE_EPOCH = Curve(np.array([1.0]), np.array([0.5]))


def example(num_classes: int, count: int = 200) -> PredictionTable:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, num_classes, count)
    probs = rng.dirichlet(np.ones(num_classes), count) * 0.6 + np.eye(num_classes)[labels] * 0.4
    names = tuple(f"class {k}" for k in range(num_classes))
    return PredictionTable(names, tuple(map(str, range(count))), labels, probs)


def labels_of(figure) -> list[str]:
    """Return the labels in the legend of a figure's first axes."""
    return figure.axes[0].get_legend_handles_labels()[1]


def test_a_small_confusion_matrix_has_counts_and_fractions():
    counts = np.array([[8, 2], [0, 0]])
    axes = confusion_figure(counts, ("cat", "dog")).axes[0]
    assert [text.get_text() for text in axes.texts] == ["8\n80%", "2\n20%", "0", "0"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog"]
    assert axes.images[0].get_array().tolist() == [[0.8, 0.2], [0, 0]]


def test_a_large_confusion_matrix_names_every_class_and_fits():
    figure = confusion_figure(np.eye(102, dtype=int) * 9, [f"name {k}" for k in range(102)])
    axes = figure.axes[0]
    assert not axes.texts
    assert len(axes.get_xticklabels()) == len(axes.get_yticklabels()) == 102
    # Height of a row in points, with room for the labels of the other axis.
    row_height = figure.get_figheight() * 72 / 102 * 0.8
    assert axes.get_yticklabels()[0].get_fontsize() <= row_height


@pytest.mark.parametrize(
    ("draw", "metric"),
    [(roc_figure, roc_auc_score), (precision_recall_figure, average_precision_score)],
)
def test_the_areas_of_the_curves_are_those_of_scikit_learn(draw, metric):
    predictions = example(3)
    expected = []
    for label in range(3):
        area = metric(predictions.labels == label, predictions.probs[:, label])
        expected.append(f"class {label} ({area:.3f})")
    assert labels_of(draw(predictions)) == expected


def test_of_many_classes_only_the_hardest_have_curves():
    assert len(labels_of(roc_figure(example(30, 900)))) == 20


def test_a_class_without_images_has_no_curve():
    predictions = example(3)
    two_classes = replace(predictions, labels=predictions.labels.clip(max=1))
    assert len(labels_of(roc_figure(two_classes))) == 2
    one_class = replace(predictions, labels=predictions.labels * 0)
    assert roc_figure(one_class).axes[0].get_legend() is None


def test_the_reliability_diagram_has_bins_of_ten_images_and_more():
    predictions = example(3)
    bins = reliability(predictions)
    merged = bins.merged(10)
    axes = reliability_figure(bins, title="Before").axes[0]
    assert axes.get_title() == f"Before: ECE {bins.error:.3f}"
    heights = [bar.get_height() for bar in axes.patches]
    assert heights == pytest.approx(merged.accuracy.tolist())
    counts = [int(text.get_text()) for text in axes.texts]
    assert counts == merged.counts.tolist()
    assert min(counts) >= 10
    assert sum(counts) == 200


def test_the_histogram_counts_every_prediction():
    predictions = example(3)
    sums = []
    for container in confidence_figure(predictions).axes[0].containers:
        sums.append(sum(bar.get_height() for bar in container))
    assert sums == [predictions.correct.sum(), (~predictions.correct).sum()]


def test_the_history_has_the_logged_curves_and_marks_the_best_epoch():
    curves = {"train/loss": CURVE, "val/loss": CURVE, "val/acc": CURVE}
    figure = history_figure(curves, marks={"best.ckpt": 1})
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "accuracy"]
    lines = figure.axes[0].get_lines()
    assert [line.get_label() for line in lines] == ["train", "val", "best.ckpt (after 2 epochs)"]
    assert lines[0].get_ydata().tolist() == [0.5, 0.25]
    assert list(lines[2].get_xdata()) == [2, 2]
    assert all(tick == int(tick) for tick in figure.axes[-1].get_xticks())


def test_the_history_has_the_largest_of_several_learning_rates():
    half = CURVE._replace(values=CURVE.values / 2)
    curves = {"train/lr/backbone": half, "train/lr/head": CURVE}
    [line] = history_figure(curves).axes[0].get_lines()
    assert line.get_ydata().tolist() == [0.5, 0.25]


def test_the_curves_of_several_runs_share_one_axes():
    half = CURVE._replace(values=CURVE.values / 2)
    axes = overlay_figure({"a": CURVE, "b": half}, title="loss").axes[0]
    assert [line.get_label() for line in axes.get_lines()] == ["a", "b"]
    assert axes.get_lines()[1].get_ydata().tolist() == [0.25, 0.125]


def test_class_names_of_any_characters_are_drawn():
    predictions = replace(example(5), class_names=HOSTILE)
    curves = [
        roc_figure(predictions),
        precision_recall_figure(predictions),
        overlay_figure(dict.fromkeys(HOSTILE, CURVE), title="loss"),
    ]
    for figure in curves:
        assert len(labels_of(figure)) == 5
    images = [np.zeros((8, 8, 3), np.uint8)] * 5
    matrix = confusion_figure(np.eye(5, dtype=int), HOSTILE)
    for figure in [*curves, matrix, gallery_figure(images, HOSTILE)]:
        assert figure_bytes(figure, "svg")


def test_a_single_epoch_is_a_dot():
    [line] = history_figure({"val/acc": ONE_EPOCH}).axes[0].get_lines()
    assert line.get_marker() == "o"


def test_many_runs_have_different_lines():
    curves = {str(number): ONE_EPOCH for number in range(30)}
    lines = overlay_figure(curves, title="loss").axes[0].get_lines()
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 30
