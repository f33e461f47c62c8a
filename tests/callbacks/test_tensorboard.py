from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from lightning.pytorch import Callback
from lightning.pytorch.utilities import rank_zero_only
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

from flowers.callbacks import FailSafeTensorBoardLogger, LogToTensorBoard
from flowers.cli import training

SMALL = [
    "--model.widths",
    "[8,16]",
    "--data.image_size",
    "32",
    "--data.crop_size",
    "24",
    "--trainer.accelerator",
    "cpu",
]


def fit(root: Path, *args: str) -> EventAccumulator:
    training.main(
        ["fit", "--data.root", str(root), *SMALL, "--trainer.log_every_n_steps", "1", *args]
    )
    return EventAccumulator("lightning_logs/version_0", size_guidance={"images": 0}).Reload()


def test_a_run_logs_curves_learning_rate_and_configuration(finished_run):
    events = EventAccumulator(str(finished_run)).Reload()
    scalars = set(events.Tags()["scalars"])
    curves = {f"{stage}/{name}" for stage in ("train", "val") for name in ("loss", "acc", "f1")}
    assert scalars >= curves | {"train/loss_step", "train/lr/weights"}
    assert not any(tag.startswith("hp_") for tag in scalars)
    for curve in curves:
        assert len(events.Scalars(curve)) == 4
    [text] = events.Tensors("config/text_summary")
    assert b"widths" in text.tensor_proto.string_val[0]


def test_a_run_logs_images_figures_and_hyper_parameters(synthetic, figures):
    events = fit(
        synthetic,
        "--trainer.max_epochs",
        "4",
        "--tensorboard.every_n_epochs",
        "2",
        "--tensorboard.graph",
        "true",
    )
    tags = events.Tags()
    assert {"train/augmented_batch", "val/confusion", "val/worst_mistakes"} <= set(tags["images"])
    assert [event.step for event in events.Images("val/confusion")] == [
        3,
        9,
        12,
    ]  # epochs 0, 2 and the last
    assert "epoch" not in tags["scalars"]  # a straight line
    [layout] = [
        event.tensor_proto.string_val[0] for event in events.Tensors("custom_scalars__config__")
    ]
    charts = [
        chart.multiline.tag
        for category in Layout.FromString(layout).category
        for chart in category.chart
    ]
    assert [list(chart) for chart in charts] == [
        ["^train/loss$", "^val/loss$"],
        ["^train/acc$", "^val/acc$"],
    ]
    assert {tag.strip("^$") for chart in charts for tag in chart} <= set(tags["scalars"])
    assert [event.step for event in events.Scalars("val/best_acc")] == [
        3,
        6,
        9,
        12,
    ]  # no point before the first epoch
    assert len(events.Images("train/augmented_batch")) == 1
    recalls = {
        f"val/recall/{name}" for name in ("daisy", "dandelion", "roses", "sunflowers", "tulips")
    }
    assert recalls | {"train/grad_norm", "train/images_per_s", "train/data_wait"} <= set(
        tags["scalars"]
    )
    assert "val/pr/daisy" in tags["tensors"]
    assert tags["graph"]
    assert all(event.value > 0 for event in events.Scalars("train/grad_norm"))
    assert all(0 <= event.value < 1 for event in events.Scalars("train/data_wait"))
    accuracies = [event.value for event in events.Scalars("val/acc")]
    assert events.Scalars("val/best_acc")[-1].value == pytest.approx(max(accuracies))
    last = [events.Scalars(tag)[-1].value for tag in recalls]
    assert sum(last) / 5 == pytest.approx(accuracies[-1], abs=1e-6)  # three images of each class


def test_the_graph_leaves_a_frozen_backbone_in_evaluation_mode(synthetic, load_last):
    words = ["--model", "TransferTask", "--model.arch", "mobilenet_v3_small"]
    words += ["--model.weights", "none", "--freeze.unfreeze_epoch", "2", "--trainer.max_epochs"]
    words += ["1", "--tensorboard.graph", "true", "--data.root", str(synthetic)]
    words += ["--data.image_size", "40", "--data.crop_size", "32", "--trainer.accelerator", "cpu"]
    training.main(["fit", *words])
    weights = load_last(Path("lightning_logs/version_0"))["state_dict"]
    counts = [int(weights[name]) for name in weights if name.endswith("num_batches_tracked")]
    assert counts
    assert not any(counts)


def test_the_last_epoch_has_figures_where_early_stopping_ended_it(synthetic):
    options = ["--early_stopping.patience", "1", "--model.lr", "1e-12", "--trainer.max_epochs", "9"]
    events = fit(synthetic, "--tensorboard.every_n_epochs", "7", *options)
    steps = [event.step for event in events.Scalars("val/acc")]
    assert len(steps) < 7
    assert [event.step for event in events.Images("val/confusion")] == [steps[0] + 1, steps[-1] + 1]


def test_a_full_disk_is_reported_once_and_the_run_continues(synthetic, monkeypatch):
    calls = []

    def full(*args, **kwargs):
        calls.append(args)
        if len(calls) > 10:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(
        "tensorboard.summary.writer.event_file_writer.EventFileWriter.add_event", full
    )
    with pytest.warns(UserWarning, match="Logging to TensorBoard stopped.*No space left") as warned:
        fit(synthetic, "--trainer.max_epochs", "2")
    assert len([w for w in warned if "Logging to TensorBoard stopped" in str(w.message)]) == 1
    assert len(calls) == 11  # no further attempts
    assert Path("lightning_logs/version_0/checkpoints/best.ckpt").exists()


def test_a_resumed_run_keeps_its_best_accuracy_in_the_hparams_tab(synthetic):
    before = fit(synthetic, "--trainer.max_epochs", "2")
    last = "lightning_logs/version_0/checkpoints/last.ckpt"
    training.main(["fit", "--ckpt_path", last, "--trainer.max_epochs", "3"])
    after = EventAccumulator("lightning_logs/version_0").Reload()
    values = [event.value for event in after.Scalars("val/best_acc")]
    assert values[-1] == pytest.approx(max(event.value for event in after.Scalars("val/acc")))
    assert values[-1] >= max(event.value for event in before.Scalars("val/best_acc"))


def test_hyper_parameters_are_logged_with_the_metrics_of_the_hparams_tab(tmp_path):
    logger = FailSafeTensorBoardLogger(
        tmp_path / "run", options={"image_size": 96, "augment/rotation": 15.0}
    )
    logger.log_hyperparams({"lr": 0.1})
    logger.log_metrics({"val/best_acc": 0.5, "val/loss_at_best_acc": 1.0}, step=1)
    logger.finalize("success")
    assert yaml.safe_load((tmp_path / "run" / "hparams.yaml").read_text()) == {
        "lr": 0.1,
        "image_size": 96,
        "augment/rotation": 15.0,
    }
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    assert "hparams" in events.summary_metadata["_hparams_/experiment"].plugin_data.plugin_name
    assert b"val/best_acc" in events.summary_metadata["_hparams_/experiment"].plugin_data.content
    assert (
        b"image_size" in events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    )
    assert [event.value for event in events.Scalars("val/best_acc")] == [0.5]


def test_only_the_first_process_logs(tmp_path, monkeypatch):
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    logger = FailSafeTensorBoardLogger(tmp_path / "run")
    logger.log_hyperparams({"lr": 0.1})
    logger.log_metrics({"val/acc": 0.5, "epoch": 0}, step=1)
    logger.finalize("success")
    assert not [*tmp_path.rglob("events.*")]


class DeletePhotos(Callback):
    """Deletes the folder of the photos when the training starts."""

    def on_fit_start(self, trainer, pl_module):
        shutil.rmtree(trainer.datamodule.index.root)


@pytest.mark.usefixtures("figures")
def test_the_figures_need_only_the_cached_images(synthetic, tmp_path):
    root = tmp_path / "copied" / "photos"
    shutil.copytree(synthetic, root)
    options = ["--trainer.max_epochs", "2", "--tensorboard.every_n_epochs", "1"]
    events = fit(root, *options, "--trainer.callbacks+", f"{__name__}.DeletePhotos")
    assert not root.exists()
    assert len(events.Images("val/worst_mistakes")) == 2


def test_an_error_in_a_figure_does_not_end_the_run(synthetic, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("no such font")

    monkeypatch.setattr("flowers.callbacks.tensorboard.confusion_figure", broken)
    with pytest.warns(UserWarning, match="lacks the figures of epoch 0: no such font"):
        fit(synthetic, "--trainer.max_epochs", "1")


def test_an_interval_below_one_is_refused():
    with pytest.raises(ValueError, match=r"`every_n_epochs`"):
        LogToTensorBoard(every_n_epochs=0)


def test_the_name_of_a_variable_in_a_run_folder_is_literal(synthetic, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    root = tmp_path / "$HOME"
    words = ["--trainer.default_root_dir", str(root), "--trainer.max_epochs", "1"]
    words += ["--trainer.log_every_n_steps", "1"]
    training.main(["fit", "--data.root", str(synthetic), *SMALL, *words])
    names = {path.name.partition(".")[0] for path in (root / "lightning_logs/version_0").iterdir()}
    assert {"config", "events", "checkpoints"} <= names
    assert [*tmp_path.iterdir()] == [root]
