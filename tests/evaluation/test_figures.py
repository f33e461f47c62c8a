from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch.utils.tensorboard import SummaryWriter

from flowers.evaluation import (
    Curve,
    PredictionTable,
    confidence_figure,
    confusion_figure,
    figure_svg,
    gallery_figure,
    history_figure,
    overlay_figure,
    precision_recall_figure,
    read_history,
    reliability,
    reliability_figure,
    roc_figure,
    training_seconds,
)


def example(num_classes: int, count: int = 200) -> PredictionTable:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, num_classes, count)
    probs = rng.dirichlet(np.ones(num_classes), count) * 0.6 + np.eye(num_classes)[labels] * 0.4
    names = tuple(f"class {k}" for k in range(num_classes))
    return PredictionTable(names, tuple(map(str, range(count))), labels, probs)


def test_a_small_confusion_matrix_shows_counts_and_shares():
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
    height_of_a_row = (
        figure.get_figheight() * 72 / 102 * 0.8
    )  # in points, with room for the labels of the other axis
    assert axes.get_yticklabels()[0].get_fontsize() <= height_of_a_row


@pytest.mark.parametrize(
    ("draw", "metric"),
    [(roc_figure, roc_auc_score), (precision_recall_figure, average_precision_score)],
)
def test_the_areas_of_the_curves_are_scikit_learns(draw, metric):
    found = example(3)
    [legend] = [draw(found).axes[0].get_legend_handles_labels()[1]]
    areas = [metric(found.labels == k, found.probs[:, k]) for k in range(3)]
    assert legend == [f"class {k} ({area:.3f})" for k, area in enumerate(areas)]


def test_of_many_classes_the_hardest_curves_are_shown_and_a_class_without_images_has_none():
    assert len(roc_figure(example(30, 900)).axes[0].get_legend_handles_labels()[1]) == 20
    found = example(3)
    only_two = PredictionTable(
        found.class_names, found.paths, found.labels.clip(max=1), found.probs
    )
    assert len(roc_figure(only_two).axes[0].get_legend_handles_labels()[1]) == 2
    one = PredictionTable(found.class_names, found.paths, found.labels * 0, found.probs)
    assert roc_figure(one).axes[0].get_legend() is None


def test_the_reliability_diagram_draws_the_bins_that_hold_images():
    found = example(3)
    bins = reliability(found.probs, found.labels)
    axes = reliability_figure(bins, title="As trained").axes[0]
    assert axes.get_title() == f"As trained: ECE {bins.error:.3f}"
    assert [bar.get_height() for bar in axes.patches] == pytest.approx(
        bins.accuracy[bins.counts > 0].tolist()
    )
    counts = [int(text.get_text()) for text in axes.texts]
    assert counts == bins.counts[bins.counts > 0].tolist()
    assert sum(counts) == 200


def test_the_histogram_counts_every_prediction():
    found = example(3)
    bars = confidence_figure(found).axes[0].containers
    right = (found.probs.argmax(1) == found.labels).sum()
    assert [sum(bar.get_height() for bar in container) for container in bars] == [
        right,
        200 - right,
    ]


def test_the_history_has_the_curves_that_were_logged_and_marks_the_best_epoch():
    curve = Curve(np.array([1.0, 2.0]), np.array([0.5, 0.25]))
    figure = history_figure(
        {"train/loss": curve, "val/loss": curve, "val/acc": curve}, marks={"best.ckpt": 1}
    )
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "accuracy"]
    lines = figure.axes[0].get_lines()
    assert [line.get_label() for line in lines] == ["train", "val", "best.ckpt (epoch 1)"]
    assert lines[0].get_ydata().tolist() == [0.5, 0.25]
    assert list(lines[2].get_xdata()) == [2, 2]


def test_runs_lie_over_each_other():
    curve = Curve(np.array([1.0, 2.0]), np.array([0.5, 0.25]))
    axes = overlay_figure(
        {"a": curve, "b": curve._replace(values=curve.values / 2)}, title="loss"
    ).axes[0]
    assert [line.get_label() for line in axes.get_lines()] == ["a", "b"]
    assert axes.get_lines()[1].get_ydata().tolist() == [0.25, 0.125]


def test_a_run_trained_as_long_as_its_processes_logged(tmp_path):
    for start in (1000, 5000):  # interrupted, and resumed much later
        with SummaryWriter(str(tmp_path), filename_suffix=f".{start}") as writer:
            for step in range(3):
                writer.add_scalar("val/acc", 0.5, step, walltime=start + 10 * step)
    assert training_seconds(tmp_path) == pytest.approx(40)
    (tmp_path / "nothing").mkdir()
    assert training_seconds(tmp_path / "nothing") is None


@pytest.mark.parametrize("every", [1, 3, 4])
def test_the_history_of_a_run_is_read_back_in_epochs(tmp_path, every):
    with SummaryWriter(str(tmp_path)) as writer:
        for step in range(12):  # three epochs of four steps
            if step % every == 0:  # Lightning logs the epoch beside whatever it logs
                writer.add_scalar("train/loss_step", step / 10, step)
                writer.add_tensor("epoch", torch.tensor(step // 4), step)
            if step % 4 == 3:
                writer.add_scalar("val/acc", 0.5, step)
                writer.add_tensor("epoch", torch.tensor(step // 4), step)
    curves = read_history(tmp_path)
    assert set(curves) == {"train/loss_step", "val/acc"}
    steps = [step for step in range(12) if step % every == 0]
    assert curves["train/loss_step"].epochs.tolist() == pytest.approx(
        [(step + 1) / 4 for step in steps]
    )
    assert curves["train/loss_step"].values.tolist() == pytest.approx([step / 10 for step in steps])
    assert curves["val/acc"].epochs.tolist() == pytest.approx([1, 2, 3])
    (tmp_path / "nothing").mkdir()
    assert read_history(tmp_path / "nothing") == {}


def test_an_epoch_that_was_cut_is_no_whole_one(tmp_path):
    with SummaryWriter(str(tmp_path)) as writer:
        for step in range(10):  # two epochs of four steps, and half of the third
            writer.add_scalar("train/loss_step", 0.0, step)
            writer.add_tensor("epoch", torch.tensor(step // 4), step)
    assert read_history(tmp_path)["train/loss_step"].epochs[-1] == pytest.approx(2.5)


HOSTILE = ("$\\frac{$", "_hidden", "a$b$c", "x" * 200, "\udcff.jpg")


def test_no_name_ends_a_figure_or_is_missing_in_it():
    found = replace(example(5), class_names=HOSTILE)
    curve = Curve(np.array([1.0, 2.0]), np.array([0.5, 0.25]))
    figures = [
        roc_figure(found),
        precision_recall_figure(found),
        confusion_figure(np.eye(5, dtype=int), HOSTILE),
        overlay_figure(dict.fromkeys(HOSTILE, curve), title="loss"),
        gallery_figure([np.zeros((8, 8, 3), np.uint8)] * 5, HOSTILE),
    ]
    for figure in figures:
        assert figure_svg(figure)
    for figure in (figures[0], figures[1], figures[3]):
        assert len(figure.axes[0].get_legend_handles_labels()[1]) == 5


def test_a_single_epoch_is_a_dot_and_many_runs_can_be_told_apart():
    one = Curve(np.array([1.0]), np.array([0.5]))
    assert history_figure({"val/acc": one}).axes[0].get_lines()[0].get_marker() == "o"
    lines = overlay_figure({str(i): one for i in range(30)}, title="loss").axes[0].get_lines()
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 30
