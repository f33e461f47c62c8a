"""The commands ``fit``, ``validate`` and ``test``."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import ClassVar

import pytest
import yaml
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import DeviceStatsMonitor
from lightning.pytorch.loggers import Logger

from flowers import runtime
from flowers.__main__ import main
from flowers.cli import training
from flowers.tasks import CNNTask

CONFIGS = Path(__file__).parents[2] / "configs"
FAST_CONFIGS = ("quickstart", "cnn", "probe", "transfer")
ALL_CONFIGS = sorted(file.stem for file in CONFIGS.glob("*.yaml"))


@pytest.mark.parametrize(
    "config",
    [
        config if config in FAST_CONFIGS else pytest.param(config, marks=pytest.mark.slow)
        for config in ALL_CONFIGS
    ],
)
def test_every_config_trains_and_tests(config, synthetic):
    words = ["--config", str(CONFIGS / f"{config}.yaml"), "--data.root", str(synthetic)]
    words += ["--data.image_size", "48", "--data.crop_size", "32"]
    words += ["--trainer.fast_dev_run", "true", "--trainer.accelerator", "cpu"]
    if config.startswith(("probe", "transfer")):
        words += ["--model.weights", "none"]
    for command in ("fit", "test"):
        training.main([command, *words])


def test_fit_without_a_config_trains_a_cnn(synthetic):
    words = ["--data.root", str(synthetic), "--trainer.fast_dev_run", "true"]
    run = training.main(["fit", *words, "--trainer.accelerator", "cpu"])
    assert isinstance(run.model, CNNTask)
    assert run.model.class_names == run.datamodule.class_names


def test_logger_and_checkpoints_can_be_switched_off(fit_small, synthetic, tmp_path):
    options = ["--trainer.logger=false", "--trainer.enable_checkpointing=false"]
    fit_small(tmp_path, synthetic, *options, "--trainer.max_epochs=1")
    assert not [*tmp_path.iterdir()]


def test_a_run_folder_means_its_best_checkpoint_and_for_fit_its_last(finished_run, tmp_path):
    best = finished_run / "checkpoints" / "best.ckpt"
    validated = training.main(["validate", "--ckpt_path", str(finished_run)])
    assert validated.config["validate"].ckpt_path == str(best)
    copied = shutil.copytree(finished_run, tmp_path / "run")
    resumed = training.main(["fit", "--ckpt_path", str(copied), "--trainer.max_epochs", "5"])
    assert resumed.trainer.log_dir == str(copied)
    # A run folder as pretrained weights also means its best checkpoint; here, of another network.
    words = ["--data.root", str(validated.datamodule.index.root), "--model", "TransferTask"]
    with pytest.raises(ValueError, match=r"--model\.weights .*best\.ckpt"):
        training.main(["fit", *words, "--model.weights", str(finished_run)])


def test_given_options_override_those_of_the_checkpoint(finished_run):
    best = str(finished_run / "checkpoints" / "best.ckpt")
    with pytest.warns(UserWarning, match="`image_size` is 40"):
        run = training.main(["test", "--ckpt_path", best, "--data.image_size", "40"])
    assert run.datamodule.image_size == 40


@pytest.mark.parametrize("config", [["--config", "own.yaml"], ["--config=own.yaml"]])
def test_options_override_a_configuration_that_comes_after_them(config, tmp_path, capsys):
    (tmp_path / "own.yaml").write_text("data: {root: theirs, batch_size: 7}")
    with pytest.raises(SystemExit):
        training.main(["fit", "--data.root", "mine", *config, "--print_config"])
    data = yaml.safe_load(capsys.readouterr().out)["data"]
    assert (data["root"], data["batch_size"]) == ("mine", 7)


def test_images_smaller_than_the_training_crops_can_be_evaluated(finished_run):
    best = str(finished_run / "checkpoints" / "best.ckpt")
    message = "`image_size` is 20; the checkpoint was trained with 32"
    with pytest.warns(UserWarning, match=message):
        run = training.main(["validate", "--ckpt_path", best, "--data.image_size=20"])
    assert run.datamodule.image_size == 20


def test_the_same_seed_gives_the_same_metrics_and_another_seed_others(
    fit_small, synthetic, tmp_path
):
    def metrics(folder, seed):
        (tmp_path / folder).mkdir()
        options = ["--seed_everything", str(seed), "--trainer.max_epochs", "2"]
        run = fit_small(tmp_path / folder, synthetic, *options)
        return {name: float(value) for name, value in run.trainer.callback_metrics.items()}

    first = metrics("a", 1)
    assert metrics("b", 1) == first
    assert metrics("c", 2) != first


@pytest.mark.filterwarnings(
    "ignore:.*could not find the monitored key", "ignore:.*not supported by the model summary"
)
def test_options_that_are_often_combined_work_together(fit_small, synthetic, tmp_path):
    """Each of these once ended in an error, or in a run without its last checkpoint."""
    combinations = [
        ["--trainer.limit_val_batches=0"],
        ["--trainer.max_steps=2"],
        ["--trainer.gradient_clip_val=1.0", "--trainer.precision=bf16-mixed"],
        ["--trainer.check_val_every_n_epoch=2", "--trainer.accumulate_grad_batches=2"],
        ["--model.norm=group", "--data.cache=false", "--data.num_workers=0"],
    ]
    for number, options in enumerate(combinations):
        folder = tmp_path / str(number)
        folder.mkdir()
        fit_small(folder, synthetic, "--trainer.max_epochs=2", *options)
        assert (folder / "lightning_logs" / "version_0" / "checkpoints" / "last.ckpt").exists()


class PlainLogger(Logger):
    """A logger without a folder, as that of a web service."""

    name = "service"
    version = "1"
    metrics: ClassVar[dict[str, float]] = {}

    def log_hyperparams(self, params, *args, **kwargs):
        self.hparams = params

    def log_metrics(self, metrics, step=None):
        self.metrics.update(metrics)


def test_other_loggers_log_in_addition_to_a_complete_run_folder(fit_small, synthetic, tmp_path):
    loggers = [
        {"class_path": "CSVLogger", "init_args": {"save_dir": str(tmp_path / "csv")}},
        {"class_path": f"{__name__}.PlainLogger"},
    ]
    options = ["--trainer.logger", json.dumps(loggers), "--trainer.max_epochs=1"]
    run = fit_small(tmp_path, synthetic, *options)
    folder = tmp_path / "lightning_logs" / "version_0"
    names = {path.name for path in folder.iterdir()}
    assert {"config.yaml", "manifest.csv", "checkpoints", "hparams.yaml"} <= names
    assert run.trainer.log_dir == str(folder)
    [table] = (tmp_path / "csv").rglob("metrics.csv")
    assert "val/acc" in table.read_text()
    assert PlainLogger.metrics["val/acc"] == run.trainer.callback_metrics["val/acc"]
    assert run.trainer.loggers[2].hparams["widths"]


def test_incorrect_data_options_leave_no_run_folder(fit_small, synthetic, tmp_path):
    with pytest.raises(ValueError, match="val_fraction"):
        fit_small(tmp_path, synthetic, "--data.val_fraction=0.95")
    assert not (tmp_path / "lightning_logs").exists()


@pytest.mark.parametrize("command", ["validate", "test"])
def test_evaluating_needs_a_checkpoint(command, synthetic, capsys):
    with pytest.raises(SystemExit):
        training.main([command, "--data.root", str(synthetic)])
    assert f"--ckpt_path: expected the checkpoint to {command}" in capsys.readouterr().err


def refusal(words, monkeypatch, capsys) -> str:
    """Return the line that answers a command, which leaves no run folder."""
    monkeypatch.setattr(runtime, "prepare", lambda: None)  # it sets threads, for other tests too
    try:
        status = main(words)
    except SystemExit as ended:
        status = ended.code
    assert status in (1, 2)
    assert not Path("lightning_logs").exists()
    message = capsys.readouterr().err
    assert "Traceback" not in message
    [line] = [line for line in message.splitlines() if line.startswith("flowers: ")]
    return line.removeprefix("flowers: ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--trainer.gradient_clip_val -1", "expected at least 0, got -1"),
        ("--trainer.accumulate_grad_batches -1", "expected at least 1, got -1"),
        ("--trainer.accumulate_grad_batches 0", "expected at least 1, got 0"),
        ("--trainer.num_sanity_val_steps -5", "expected at least -1, got -5"),
        ("--trainer.check_val_every_n_epoch 0", "expected at least 1, got 0"),
        ("--early_stopping.patience -1", "expected at least 0, got -1"),
        ("--early_stopping.min_delta .nan", "expected at least 0, got nan"),
        ("--last_checkpoint.every_n_epochs 0", "expected at least 1, got 0"),
        ("--data.num_workers -1", "expected at least 0, got -1"),
        ("--trainer.precision bf16-true", "expected 32-true or a mixed one"),
        ("--freeze.unfreeze_epoch 3", "expected a --model TransferTask"),
        ("--trainer.callbacks LearningRateFinder", "the schedule would overwrite"),
        ("--model.lr null", "expected a value, got null"),
        ("--model.norm null", "expected a value, got null"),
    ],
)
def test_a_value_out_of_its_bounds_is_refused(words, message, synthetic, monkeypatch, capsys):
    answer = refusal(["fit", "--data.root", str(synthetic), *words.split()], monkeypatch, capsys)
    assert answer.startswith(words.split()[0])
    assert message in answer


@pytest.mark.parametrize(
    "words",
    [
        "--trainer.max_epochs -5",
        "--trainer.limit_train_batches 1.5",
        "--trainer.val_check_interval 100",
        "--trainer.max_time abc",
        "--trainer.strategy foo",
        "--trainer.accelerator tpu",
        "--trainer.default_root_dir /proc/x",
        "--trainer.logger WandbLogger",
        "--trainer.profiler foo",
        "--data.cache_dir /dev/null",
    ],
)
def test_an_error_of_lightning_before_the_first_batch_is_a_line_with_the_option(
    words, synthetic, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "wandb", None)
    options = ["--data.root", str(synthetic), "--trainer.max_epochs", "2"]
    answer = refusal(["fit", *options, *words.split()], monkeypatch, capsys)
    assert answer.startswith(words.split()[0])


class FailingCallback(Callback):
    """Fails in the first batch, or before it."""

    def __init__(self, hook: str) -> None:
        def fail(*args: object) -> None:
            raise RuntimeError("broken")

        setattr(self, hook, fail)


def test_an_error_in_a_batch_keeps_the_run_folder(fit_small, synthetic, tmp_path):
    def fit(hook):
        callback = {"class_path": f"{__name__}.FailingCallback", "init_args": {"hook": hook}}
        fit_small(tmp_path, synthetic, "--trainer.callbacks", json.dumps([callback]))

    with pytest.raises(ValueError, match=r"--trainer\.callbacks .*: broken"):
        fit("on_sanity_check_start")
    assert not (tmp_path / "lightning_logs").exists()
    with pytest.raises(RuntimeError, match="broken"):
        fit("on_train_batch_end")
    assert (tmp_path / "lightning_logs" / "version_0" / "config.yaml").exists()


def test_a_single_callback_needs_no_list(fit_small, synthetic, tmp_path):
    options = ["--trainer.callbacks", "DeviceStatsMonitor", "--trainer.callbacks.cpu_stats=false"]
    run = fit_small(tmp_path, synthetic, *options, "--trainer.max_epochs=1")
    assert any(isinstance(callback, DeviceStatsMonitor) for callback in run.trainer.callbacks)


def test_the_home_folder_is_expanded_in_every_path(synthetic, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "photos").symlink_to(synthetic)
    logger = {"class_path": "CSVLogger", "init_args": {"save_dir": "~/csv"}}
    config = {
        "trainer": {
            "default_root_dir": "~/runs",
            "max_epochs": 1,
            "logger": [logger],
            "log_every_n_steps": 1,
        },
        "data": {"root": "~/photos", "cache_dir": "~/cache", "image_size": 32, "crop_size": 24},
        "model": {"class_path": "CNNTask", "init_args": {"widths": [8]}},
    }
    Path("config.yaml").write_text(json.dumps(config))
    training.main(["fit", "--config=~/config.yaml", "--trainer.accelerator=cpu"])
    run = tmp_path / "runs" / "lightning_logs" / "version_0"
    manifest = ["--data.manifest=~/runs/lightning_logs/version_0/manifest.csv"]
    words = ["--ckpt_path=~/runs/lightning_logs/version_0", "--report.folder=~/report"]
    training.main(["test", *words, *manifest])
    assert (tmp_path / "report" / "report.html").exists()
    assert [*(tmp_path / "csv").rglob("metrics.csv")]
    assert (tmp_path / "cache").is_dir()
    assert "~" not in (run / "config.yaml").read_text()
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize(("limit", "num_steps"), [("1", 1), ("1.0", 3)])
def test_a_limit_of_1_is_one_batch_and_1_0_all(limit, num_steps, fit_small, synthetic):
    options = [f"--trainer.limit_train_batches={limit}", "--trainer.fast_dev_run=false"]
    run = fit_small(Path(), synthetic, *options, "--trainer.max_epochs=1")
    assert run.trainer.global_step == num_steps
