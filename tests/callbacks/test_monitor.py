from __future__ import annotations

import pytest
import torch
import yaml

from flowers.__main__ import main
from flowers.callbacks.monitor import check_monitor, monitor_mode
from flowers.cli import training


@pytest.mark.parametrize(
    ("monitor", "mode"),
    [("val/loss", "min"), ("val/acc", "max"), ("val/f1", "max"), ("val/recall/a/b", "max")],
)
def test_the_mode_follows_from_the_metric_and_a_contradiction_is_refused(monitor, mode):
    assert monitor_mode(monitor, None) == monitor_mode(monitor, mode) == mode
    other = {"min": "max", "max": "min"}[mode]
    with pytest.raises(ValueError, match=f"`mode` {other}: expected {mode} for `monitor`"):
        monitor_mode(monitor, other)


def test_a_custom_metric_needs_a_mode():
    assert monitor_mode("val/auroc", "max") == "max"
    for monitor in ("val/auroc", "auroc"):
        with pytest.raises(ValueError, match="for a metric of your own"):
            monitor_mode(monitor, None)


def test_a_misspelt_metric_is_refused_with_the_list():
    check_monitor("val/recall/daisy", ["daisy", "tulips"])
    for monitor in ("val/recal", "val_acc", "train/acc", "val/recall/roses"):
        with pytest.raises(
            ValueError, match="expected one of val/loss, val/acc, val/f1, val/recall/daisy"
        ):
            check_monitor(monitor, ["daisy", "tulips"])


SMALL = [
    "--model.widths=[8,16]",
    "--data.image_size=32",
    "--data.crop_size=24",
    "--trainer.accelerator=cpu",
]
SMALL += ["--trainer.log_every_n_steps=1"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--checkpoint.monitor=val/recall/tulip"], "val/recall/tulips"),
        (
            ["--checkpoint.monitor=val/accuracy"],
            "expected val/loss, val/acc, val/f1 or val/recall/<class>",
        ),
        (
            ["--checkpoint.monitor=val/accuracy", "--checkpoint.mode=max"],
            "expected one of val/loss, val/acc",
        ),
        (["--checkpoint.monitor=val/loss", "--checkpoint.mode=max"], "expected min for"),
    ],
)
def test_an_unknown_metric_is_refused_before_there_is_a_run_folder(
    options, expected, synthetic, tmp_path, capsys
):
    words = ["fit", "--data.root", str(synthetic), *SMALL, *options]
    assert main(words) == 1
    error = capsys.readouterr().err
    assert expected in error
    assert "Traceback" not in error
    assert not (tmp_path / "lightning_logs").exists()


@pytest.mark.parametrize("monitor", ["val/loss", "val/recall/daisy"])
def test_best_epoch_and_early_stopping_follow_the_metric(monitor, synthetic, tmp_path):
    options = ["--checkpoint.monitor", monitor, "--trainer.max_epochs", "2", "--model.lr", "0.02"]
    run = training.main(["fit", "--data.root", str(synthetic), *SMALL, *options])
    best = run.trainer.checkpoint_callback
    early_stopping = run.trainer.early_stopping_callback
    assert (early_stopping.monitor, early_stopping.mode) == (monitor, monitor_mode(monitor, None))
    value = run.trainer.callback_metrics[monitor]
    better = torch.le if monitor == "val/loss" else torch.ge
    assert better(best.best_model_score, value)
    assert best.best_model_score == early_stopping.best_score
    config = yaml.safe_load((tmp_path / "lightning_logs" / "version_0" / "config.yaml").read_text())
    assert config["checkpoint"]["monitor"] == monitor
