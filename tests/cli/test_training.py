"""The command line, end to end, in this process."""

from __future__ import annotations

import ast
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import ClassVar

import pytest
import torch
import yaml
from lightning.pytorch.loggers import Logger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from flowers.callbacks import AtomicCheckpointIO, SeedSteps
from flowers.checkpoint import read_checkpoint, stored_config
from flowers.cli import training
from flowers.cli.predict import predict
from flowers.evaluation import read_predictions
from flowers.run_folder import claim_run_folder
from flowers.tasks import CNNTask

CONFIGS = Path(__file__).parents[2] / "configs"
SMALL = {
    "trainer": {"max_epochs": 4, "log_every_n_steps": 1, "accelerator": "cpu", "devices": 1},
    "model": {
        "class_path": "CNNTask",
        "init_args": {"lr": 0.03, "widths": [8, 16], "ema_decay": 0.9, "dropout": 0.2},
    },
    "data": {"image_size": 32, "crop_size": 24, "batch_size": 32, "augment": {"erase_prob": 0.2}},
}


def fit(folder: Path, root: Path, *args: str) -> training.FlowersCLI:
    config = folder / "small.yaml"
    config.write_text(yaml.safe_dump(SMALL))
    where = ["--data.root", str(root), "--trainer.default_root_dir", str(folder)]
    return training.main(["fit", "--config", str(config), *where, *args])


def last(run: Path) -> dict:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.fixture(scope="module")
def whole_run(synthetic, tmp_path_factory, cache_home):
    """Return the folder of a run of four epochs, and what it printed."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache_home))
        fit(folder, synthetic)
    return folder / "lightning_logs" / "version_0"


@pytest.fixture(scope="module")
def one_epoch(synthetic, tmp_path_factory, cache_home):
    """Return the folder of a run of one epoch."""
    folder = tmp_path_factory.mktemp("one_epoch")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache_home))
        fit(folder, synthetic, "--trainer.max_epochs=1")
    return folder / "lightning_logs" / "version_0"


@pytest.fixture
def short_run(one_epoch, tmp_path):
    """Return the folder of a run of one epoch, copied to where a test can go on with it."""
    return shutil.copytree(one_epoch, tmp_path / "lightning_logs" / "version_0")


SLOW_CONFIGS = ("convnext_tiny", "multi_gpu", "resnet50", "vgg16")


@pytest.mark.parametrize(
    "config",
    [
        *("quickstart", "cnn", "probe", "transfer"),
        *(pytest.param(config, marks=pytest.mark.slow) for config in SLOW_CONFIGS),
    ],
)
def test_every_config_trains_and_tests(config, synthetic):
    args = [
        "--config",
        str(CONFIGS / f"{config}.yaml"),
        "--data.root",
        str(synthetic),
        "--trainer.fast_dev_run",
        "true",
    ]
    small = ["--data.image_size", "48", "--data.crop_size", "32", "--trainer.accelerator", "cpu"]
    if config not in ("quickstart", "cnn", "multi_gpu"):
        small += ["--model.weights", "none"]
    for verb in ("fit", "test"):
        training.main([verb, *args, *small])


def test_the_config_alone_is_enough_without_one(synthetic):
    run = training.main(
        [
            "fit",
            "--data.root",
            str(synthetic),
            "--trainer.fast_dev_run",
            "true",
            "--trainer.accelerator",
            "cpu",
        ]
    )
    assert isinstance(run.model, CNNTask)
    assert run.model.class_names == run.datamodule.class_names


def test_logger_and_checkpoints_can_be_switched_off(synthetic, tmp_path):
    fit(
        tmp_path,
        synthetic,
        "--trainer.logger=false",
        "--trainer.enable_checkpointing=false",
        "--trainer.max_epochs=1",
    )
    assert [path.name for path in tmp_path.iterdir()] == ["small.yaml"]


def test_a_run_leaves_what_it_needs_to_be_believed_and_repeated(whole_run):
    assert {path.name for path in whole_run.iterdir()} >= {
        "config.yaml",
        "manifest.csv",
        "checkpoints",
    }
    assert {path.name for path in (whole_run / "checkpoints").iterdir()} == {
        "best.ckpt",
        "last.ckpt",
    }
    config = yaml.safe_load((whole_run / "config.yaml").read_text())
    assert config["model"]["init_args"]["widths"] == [8, 16]
    assert config["seed_everything"] == 0
    with (whole_run / "manifest.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 150


def test_tensorboard_shows_the_curves_the_rate_and_the_config(whole_run):
    events = EventAccumulator(str(whole_run)).Reload()
    scalars = set(events.Tags()["scalars"])
    curves = {f"{stage}/{name}" for stage in ("train", "val") for name in ("loss", "acc", "f1")}
    assert scalars >= curves | {"train/loss_step", "train/lr/convolutions"}
    assert not any(tag.startswith("hp_") for tag in scalars)
    for curve in curves:
        assert len(events.Scalars(curve)) == 4
    [text] = events.Tensors("config/text_summary")
    assert b"widths" in text.tensor_proto.string_val[0]


def test_it_learns(whole_run):
    events = EventAccumulator(str(whole_run)).Reload()
    losses = [event.value for event in events.Scalars("train/loss")]
    assert losses[-1] < losses[0] - 0.1


def test_the_checkpoint_is_plain_data_of_a_known_shape(whole_run):
    checkpoint = torch.load(whole_run / "checkpoints" / "best.ckpt", weights_only=True)
    assert checkpoint["hyper_parameters"]["class_names"][0] == "daisy"
    assert not any(
        "_orig_mod" in key or not key.startswith("net.") for key in checkpoint["state_dict"]
    )
    stored = checkpoint["FlowersDataModule"]
    assert {"data_fingerprint", "split_fingerprint", "image_size", "resize", "trained_on"} <= set(
        stored
    )
    assert len(stored["trained_on"]) == 120
    assert yaml.safe_load(checkpoint["config"])["data"]["image_size"] == 32
    task = CNNTask.load_from_checkpoint(whole_run / "checkpoints" / "best.ckpt", weights_only=True)
    assert task.hparams.widths == (8, 16)


def test_a_checkpoint_is_enough_to_evaluate_and_predict_elsewhere(whole_run, tmp_path, capsys):
    ckpt = ["--ckpt_path", str(whole_run / "checkpoints" / "best.ckpt")]
    training.main(["validate", *ckpt])
    assert "val/acc: " in capsys.readouterr().out
    run = training.main(["test", *ckpt])
    right = round(float(run.trainer.callback_metrics["test/acc"]) * 15)
    assert f"test/acc: {right} of 15 images are correct" in capsys.readouterr().out
    assert run.datamodule.image_size == 32
    assert not [*tmp_path.iterdir()]  # no run folder


def test_a_run_folder_stands_for_its_best_checkpoint(whole_run, tmp_path):
    run = training.main(["validate", "--ckpt_path", str(whole_run)])
    assert run.config["validate"].ckpt_path == str(whole_run / "checkpoints" / "best.ckpt")
    copied = shutil.copytree(whole_run, tmp_path / "run")
    resumed = training.main(
        ["fit", "--ckpt_path", str(copied), "--trainer.max_epochs", "5"]
    )  # from its last one
    assert resumed.trainer.log_dir == str(copied)
    words = [
        "--data.root",
        str(run.datamodule.index.root),
        "--model",
        "TransferTask",
        "--model.weights",
        str(whole_run),
    ]
    with pytest.raises(ValueError, match=r"--model\.weights .*best\.ckpt"):
        training.main(
            ["fit", *words, "--model.weights", str(whole_run)]
        )  # its network is another one


def test_what_is_typed_wins_over_the_checkpoint(whole_run):
    ckpt = ["--ckpt_path", str(whole_run / "checkpoints" / "best.ckpt")]
    with pytest.warns(UserWarning, match=r"--data\.image_size is 40"):
        run = training.main(["test", *ckpt, "--data.image_size", "40"])
    assert run.datamodule.image_size == 40


def test_the_summary_names_commands_that_exist(synthetic, tmp_path, capsys):
    run = fit(tmp_path, synthetic, "--trainer.max_epochs", "1")
    printed = capsys.readouterr().out
    best = run.trainer.checkpoint_callback
    assert f"Best epoch       {best.best_epoch}" in printed
    assert f"{float(run.trainer.callback_metrics['val/acc']):.4f}" in printed
    command = next(line for line in printed.splitlines() if "python -m flowers test" in line)
    training.main(command.split("python -m flowers ")[1].split())


def test_same_seed_same_metrics_other_seed_others(synthetic, tmp_path):
    def metrics(folder, seed):
        (tmp_path / folder).mkdir()
        run = fit(
            tmp_path / folder,
            synthetic,
            "--seed_everything",
            str(seed),
            "--trainer.max_epochs",
            "2",
        )
        return {name: float(value) for name, value in run.trainer.callback_metrics.items()}

    first = metrics("a", 1)
    assert metrics("b", 1) == first
    assert metrics("c", 2) != first


class KillAt(SeedSteps):
    """Ends the process as ``kill -9`` does, in the middle of the third epoch."""

    def on_train_batch_end(self, trainer, *args, **kwargs):
        if trainer.current_epoch == 2 and trainer.global_step % 3 == 2:
            os.kill(os.getpid(), signal.SIGKILL)


def _fit_and_die(folder, root):
    torch.set_num_threads(1)
    training.SeedSteps = KillAt
    fit(folder, root)


def test_killed_and_resumed_equals_never_interrupted_bit_for_bit(
    whole_run, synthetic, tmp_path, forkserver
):
    process = forkserver.Process(target=_fit_and_die, args=(tmp_path, synthetic))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    run = tmp_path / "lightning_logs" / "version_0"
    assert last(run)["epoch"] == 1
    training.main(["fit", "--ckpt_path", str(run / "checkpoints" / "last.ckpt")])
    assert [path.name for path in run.parent.iterdir()] == [
        "version_0"
    ]  # it went on in its own folder
    ours, theirs = last(run), last(whole_run)
    for part in ("state_dict", "current_model_state"):
        assert ours[part].keys() == theirs[part].keys()
        for key in ours[part]:
            assert torch.equal(ours[part][key], theirs[part][key]), key
    for key, state in ours["optimizer_states"][0]["state"].items():
        other = theirs["optimizer_states"][0]["state"][key]
        assert state.keys() == other.keys()
        assert all(torch.equal(state[name], other[name]) for name in state)
    best = [
        torch.load(r / "checkpoints" / "best.ckpt", weights_only=True)["epoch"]
        for r in (run, whole_run)
    ]
    assert best[0] == best[1]


def test_last_is_the_run_that_saved_last_or_a_new_one(synthetic, tmp_path, monkeypatch, capsys):
    words = ["--ckpt_path", "last", "--data.root", str(synthetic), "--trainer.max_epochs"]
    run = fit(tmp_path, synthetic, *words, "1").trainer
    assert run.current_epoch == 1
    fit(tmp_path, synthetic, "--trainer.max_epochs", "1")  # another run, which saves later
    logs = tmp_path / "lightning_logs"
    fit(tmp_path, synthetic, *words, "2")
    assert [last(logs / f"version_{number}")["epoch"] for number in (0, 1)] == [0, 1]
    monkeypatch.chdir(logs / "version_0")
    training.main(["fit", *words, "3"])
    assert last(logs / "version_0")["epoch"] == 2
    assert {path.name for path in logs.iterdir()} == {"version_0", "version_1"}


def test_another_batch_than_before_is_said(short_run, tmp_path):
    words = [
        "--ckpt_path",
        "last",
        "--trainer.default_root_dir",
        str(tmp_path),
        "--trainer.max_epochs",
    ]
    with pytest.warns(
        UserWarning,
        match=r"processes: 1 \(before: 1\), images a step: 64 \(before: 32\)\. An epoch has",
    ):
        training.main(["fit", *words, "2", "--trainer.accumulate_grad_batches", "2"])


@pytest.mark.filterwarnings("ignore:.*could not find the monitored key")
def test_resuming_adds_to_the_run_and_replaces_nothing(short_run, tmp_path):
    run, where = short_run, f"--trainer.default_root_dir={tmp_path}"
    before = (run / "config.yaml").read_text()
    training.main(
        ["fit", "--ckpt_path", str(run / "checkpoints" / "last.ckpt"), "--trainer.max_epochs", "2"]
    )
    assert last(run)["epoch"] == 1
    assert (run / "config.yaml").read_text() == before
    assert yaml.safe_load((run / "config-2.yaml").read_text())["trainer"]["max_epochs"] == 2
    assert not (run / "manifest-2.csv").exists()
    # From another checkpoint than the last a new run begins: the old one's last epochs stay.
    best = str(run / "checkpoints" / "best.ckpt")
    training.main(["fit", "--ckpt_path", best, where, "--trainer.max_epochs", "3"])
    assert last(run)["epoch"] == 1
    assert (run / "checkpoints" / "best.ckpt").exists()
    assert last(run.with_name("version_1"))["epoch"] == 2
    # No epoch of this one is validated, so none is its best.
    training.main(
        [
            "fit",
            "--ckpt_path",
            best,
            where,
            "--trainer.max_epochs",
            "3",
            "--trainer.limit_val_batches",
            "0",
        ]
    )
    assert [file.name for file in (run.with_name("version_2") / "checkpoints").iterdir()] == [
        "last.ckpt"
    ]


def files(folder: Path) -> dict[str, int]:
    """Return the files in a folder, with the time of their last change."""
    return {str(file): file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    ("options", "more"),
    [
        (["--trainer.max_epochs=1"], ["--trainer.max_epochs=2"]),
        (
            ["--model.lr=1e-9", "--model.ema_decay=null", "--early_stopping.patience=1"],
            ["--early_stopping.patience=2"],
        ),
    ],
)
def test_a_finished_run_says_so_and_stays_as_it_is(options, more, synthetic, tmp_path, caplog):
    fit(tmp_path, synthetic, *options)
    run = tmp_path / "lightning_logs" / "version_0"
    before = files(tmp_path)
    num_epochs = last(run)["epoch"]
    words = ["fit", "--ckpt_path", str(run / "checkpoints" / "last.ckpt")]
    with pytest.raises(SystemExit) as ended:
        training.main(words)
    assert ended.value.code == 0
    assert "this run is finished" in caplog.text
    assert files(tmp_path) == before
    training.main([*words, *more])
    assert last(run)["epoch"] > num_epochs


def test_a_schedule_of_another_length_is_taken_up_at_its_own_rate(short_run, tmp_path, caplog):
    words = ["--ckpt_path", "last", "--trainer.default_root_dir", str(tmp_path)]
    training.main(["fit", *words, "--trainer.max_epochs=3"])
    assert "learning rate changes from 0 to 0.0" in caplog.text
    events = EventAccumulator(str(tmp_path / "lightning_logs" / "version_0")).Reload()
    rates = [
        event.value
        for tag in events.Tags()["scalars"]
        if tag.startswith("train/lr")
        for event in events.Scalars(tag)
    ]
    assert min(rates) > 0


@pytest.mark.filterwarnings("ignore:.*will be overridden by")
def test_a_resumed_run_asks_for_the_optimizer_that_it_was_given(synthetic, tmp_path):
    optimizer = ["--optimizer=torch.optim.SGD", "--optimizer.lr=0.1", "--optimizer.momentum=0.5"]
    fit(tmp_path, synthetic, "--trainer.max_epochs=1", *optimizer)
    words = [
        "fit",
        "--ckpt_path=last",
        f"--trainer.default_root_dir={tmp_path}",
        "--trainer.max_epochs=2",
    ]
    with pytest.raises(
        ValueError, match=r"Give again: --optimizer torch\.optim\.SGD --optimizer\.lr 0\.1"
    ) as refused:
        training.main(words)
    again = str(refused.value).partition("Give again: ")[2].split()
    training.main([*words, *again])
    assert last(tmp_path / "lightning_logs" / "version_0")["epoch"] == 1


def test_a_configuration_of_another_network_than_the_checkpoints_is_refused(short_run, tmp_path):
    before = files(tmp_path)
    for config, name in (
        ("transfer", "TransferTask arch mobilenet_v2"),
        ("cnn", r"CNNTask widths \[48, 96, 192\]"),
    ):
        words = ["--config", str(CONFIGS / f"{config}.yaml"), "--model.widths=[48,96,192]"]
        words = words if config == "cnn" else words[:2]
        with pytest.raises(
            ValueError, match=rf"its network is CNNTask widths \[8, 16\].* define {name}"
        ):
            training.main(
                ["fit", "--ckpt_path=last", f"--trainer.default_root_dir={tmp_path}", *words]
            )
    assert files(tmp_path) == before


def test_weights_that_were_trained_on_images_this_run_evaluates_are_reported(
    whole_run, synthetic, tmp_path
):
    best = str(whole_run / "checkpoints" / "best.ckpt")
    data = [
        "--data.image_size=64",
        "--data.crop_size=64",
        f"--data.root={synthetic}",
        "--trainer.max_epochs=1",
    ]
    net = [
        "--model=TransferTask",
        "--model.arch=squeezenet1_1",
        "--model.weights=none",
        "--trainer.accelerator=cpu",
    ]
    net += ["--trainer.log_every_n_steps=1"]
    training.main(["fit", *net, *data, f"--trainer.default_root_dir={tmp_path}"])
    weights = f"--model.weights={tmp_path}/lightning_logs/version_0/checkpoints/best.ckpt"
    data.append("--trainer.fast_dev_run=true")
    training.main(["fit", *net, weights, *data])  # the same split: not a word (warnings are errors)
    with pytest.warns(
        UserWarning, match=r"best\.ckpt was trained on \d+ of the 30 validation and test images"
    ):
        training.main(["fit", *net, weights, *data, "--data.split_seed=7"])
    # Other data, some of it the same: told when it is evaluated.
    other = tmp_path / "other" / "photos"
    shutil.copytree(synthetic, other)
    next((other / "daisy").iterdir()).unlink()
    evaluate = ["test", "--ckpt_path", best, "--data.root", str(other), "--data.split_seed=7"]
    with (
        pytest.warns(
            UserWarning, match="holds other images than those that the checkpoint's run had"
        ),
        pytest.warns(
            UserWarning,
            match=r"the checkpoint was trained on \d+ of the \d+ validation and test images",
        ),
    ):
        training.main(evaluate)


def test_a_small_folder_learns_with_the_shipped_recipe(synthetic, tmp_path):
    size = [
        "--data.image_size=40",
        "--data.crop_size=32",
        "--data.batch_size=16",
        "--model.widths=[24,48]",
    ]
    short = [
        "--trainer.max_epochs=10",
        "--trainer.accelerator=cpu",
        f"--data.root={synthetic}",
        "--trainer.logger=false",
    ]
    run = training.main(["fit", "--config", str(CONFIGS / "cnn.yaml"), *size, *short])
    # 70 steps. An average with its decay of 0.995 from the first one on stands at chance, 0.2.
    assert run.trainer.callback_metrics["val/acc"] > 0.35


def test_a_nan_loss_stops_the_run_and_leaves_the_last_good_checkpoint(
    synthetic, tmp_path, monkeypatch
):
    step = CNNTask.training_step

    def broken(self, batch, batch_idx):
        loss = step(self, batch, batch_idx)
        return loss * float("nan") if self.current_epoch == 2 else loss

    monkeypatch.setattr(CNNTask, "training_step", broken)
    with pytest.raises(
        FloatingPointError, match=r"NaN or infinite in epoch 2.*best\.ckpt.*--model\.lr"
    ):
        fit(tmp_path, synthetic)
    kept = last(tmp_path / "lightning_logs" / "version_0")
    assert kept["epoch"] == 1
    assert all(torch.isfinite(value).all() for value in kept["state_dict"].values())


@pytest.mark.filterwarnings("ignore:Encountered `nan` values")
def test_weights_broken_by_the_last_step_are_not_saved(synthetic, tmp_path, monkeypatch):
    def poison(self):
        if self.current_epoch == 1:
            with torch.no_grad():
                self.net.head[-1].bias.fill_(float("nan"))

    monkeypatch.setattr(CNNTask, "on_validation_start", poison, raising=False)
    with pytest.raises(FloatingPointError, match="validation loss became NaN"):
        fit(tmp_path, synthetic, "--model.ema_decay", "null")
    assert last(tmp_path / "lightning_logs" / "version_0")["epoch"] == 0


@pytest.mark.filterwarnings(
    "ignore:.*could not find the monitored key", "ignore:.*not supported by the model summary"
)
def test_options_that_often_go_together_do(synthetic, tmp_path):
    """Each of these once ended in an error, or in a run without its last checkpoint."""
    for number, options in enumerate(
        (
            ["--trainer.limit_val_batches=0"],
            ["--trainer.max_steps=2"],
            ["--trainer.gradient_clip_val=1.0", "--trainer.precision=bf16-mixed"],
            ["--trainer.check_val_every_n_epoch=2", "--trainer.accumulate_grad_batches=2"],
            ["--model.norm=group", "--data.cache=false", "--data.num_workers=0"],
        )
    ):
        (tmp_path / str(number)).mkdir()
        fit(tmp_path / str(number), synthetic, "--trainer.max_epochs=2", *options)
        assert (
            tmp_path / str(number) / "lightning_logs" / "version_0" / "checkpoints" / "last.ckpt"
        ).exists()


@pytest.mark.filterwarnings("ignore:You requested to overfit")
def test_overfitting_batches_on_purpose_takes_training_images_only(synthetic, tmp_path):
    seen = []
    step = CNNTask.training_step

    def noted(self, batch, batch_idx):
        seen.extend(batch[2].tolist())
        return step(self, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CNNTask, "training_step", noted)
        run = fit(tmp_path, synthetic, "--trainer.overfit_batches=1", "--trainer.max_epochs=1")
    assert seen
    assert set(seen) <= set(run.datamodule.indices["train"].tolist())


def test_a_moved_run_goes_on_where_it_lies(short_run, tmp_path):
    run = short_run.rename(tmp_path / "moved")
    best = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    training.main(
        ["fit", "--ckpt_path", str(run / "checkpoints" / "last.ckpt"), "--trainer.max_epochs=2"]
    )
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert last(run)["epoch"] == 1
    state = next(
        state for key, state in last(run)["callbacks"].items() if key.startswith("SaveBest")
    )
    if state["best_epoch"] < 1:
        assert (
            torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["epoch"]
            == best["epoch"]
        )


def test_a_checkpoint_named_last_elsewhere_does_not_make_its_place_a_run(whole_run, tmp_path):
    (tmp_path / "home" / "u").mkdir(parents=True)
    copy = tmp_path / "home" / "u" / "last.ckpt"
    copy.write_bytes((whole_run / "checkpoints" / "last.ckpt").read_bytes())
    training.main(
        [
            "fit",
            "--ckpt_path",
            str(copy),
            "--trainer.max_epochs=5",
            f"--trainer.default_root_dir={tmp_path}",
        ]
    )
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["u"]
    assert last(tmp_path / "lightning_logs" / "version_0")["epoch"] == 4


class PlainLogger(Logger):
    """A logger without a folder, as of a service."""

    name, version = "service", "1"
    metrics: ClassVar[dict[str, float]] = {}

    def log_hyperparams(self, params, *args, **kwargs):
        self.hparams = params

    def log_metrics(self, metrics, step=None):
        self.metrics.update(metrics)


def test_other_loggers_log_beside_a_whole_run_folder(synthetic, tmp_path):
    loggers = [
        {"class_path": "CSVLogger", "init_args": {"save_dir": str(tmp_path / "csv")}},
        {"class_path": f"{__name__}.PlainLogger"},
    ]
    run = fit(
        tmp_path, synthetic, "--trainer.logger", json.dumps(loggers), "--trainer.max_epochs=1"
    )
    names = {path.name for path in (tmp_path / "lightning_logs" / "version_0").iterdir()}
    assert {"config.yaml", "manifest.csv", "checkpoints", "hparams.yaml"} <= names
    assert run.trainer.log_dir == str(tmp_path / "lightning_logs" / "version_0")
    [table] = (tmp_path / "csv").rglob("metrics.csv")
    assert "val/acc" in table.read_text()
    assert PlainLogger.metrics["val/acc"] == run.trainer.callback_metrics["val/acc"]
    assert run.trainer.loggers[2].hparams["widths"]


def test_what_is_written_among_the_photos_would_become_a_class(whole_run, synthetic, tmp_path):
    root = tmp_path / "photos"
    shutil.copytree(synthetic, root)
    with pytest.raises(
        ValueError, match=r"--trainer\.default_root_dir .*runs: expected a folder outside --data"
    ):
        fit(tmp_path, root, f"--trainer.default_root_dir={root / 'runs'}")
    words = ["--ckpt_path", str(whole_run / "checkpoints" / "best.ckpt"), f"--data.root={root}"]
    with pytest.raises(
        ValueError, match=r"--report\.folder .*out: expected a folder outside --data"
    ):
        training.main(["test", *words, f"--report.folder={root / 'out'}"])
    assert {path.name for path in root.iterdir()} == {path.name for path in synthetic.iterdir()}


def test_wrong_data_leaves_no_run_folder(synthetic, tmp_path):
    with pytest.raises(ValueError, match="val_fraction"):
        fit(tmp_path, synthetic, "--data.val_fraction=0.95")
    assert not (tmp_path / "lightning_logs").exists()


def test_a_checkpoint_finds_its_data_from_another_folder(synthetic, tmp_path, monkeypatch):
    (tmp_path / "photos").symlink_to(synthetic)
    fit(tmp_path, Path("photos"), "--trainer.max_epochs=1")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    ckpt = tmp_path / "lightning_logs" / "version_0" / "checkpoints" / "best.ckpt"
    assert (
        training.main(["test", "--ckpt_path", str(ckpt)]).datamodule.index.root
        == tmp_path / "photos"
    )


def test_a_run_among_the_photos_becomes_no_class(photos, monkeypatch):
    root = photos(cat=12, dog=12)
    monkeypatch.chdir(root)
    for _ in range(2):
        fit(root, Path(), "--trainer.max_epochs=1")
    first, second = (
        root / "lightning_logs" / f"version_{number}" / "manifest.csv" for number in range(2)
    )
    assert first.read_text() == second.read_text()


def test_a_run_on_a_divided_folder_predicts_its_test_images(photos, tmp_path):
    for file in sorted(photos(cat=12, dog=12).glob("*/*.png")):
        folder = (
            tmp_path / "divided" / ("train", "val", "test")[int(file.stem) % 3] / file.parent.name
        )
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder)
    fit(tmp_path, tmp_path / "divided", "--trainer.max_epochs=1")
    ckpt = tmp_path / "lightning_logs" / "version_0" / "checkpoints" / "best.ckpt"
    training.main(["test", "--ckpt_path", str(ckpt)])
    with (ckpt.parents[1] / "predictions.csv").open(newline="") as opened:
        rows = [*csv.DictReader(opened)]
    assert len(rows) == 8
    assert all(row["path"].split("/")[:2] == ["test", row["label"]] for row in rows)


def test_a_stored_config_names_no_code(whole_run, tmp_path):
    checkpoint = torch.load(whole_run / "checkpoints" / "last.ckpt", weights_only=True)
    config = yaml.safe_load(checkpoint["config"])
    config["trainer"]["callbacks"] = [{"class_path": "lightning.pytorch.callbacks.LambdaCallback"}]
    torch.save(checkpoint | {"config": yaml.safe_dump(config)}, tmp_path / "hostile.ckpt")
    file = str(tmp_path / "hostile.ckpt")
    assert "callbacks" not in stored_config(read_checkpoint(file), "fit", ckpt_path=file)["trainer"]
    config["model"]["class_path"] = "antigravity.Task"
    torch.save(checkpoint | {"config": yaml.safe_dump(config)}, tmp_path / "hostile.ckpt")
    with pytest.raises(ValueError, match="its model is not part of this package"):
        training.main(["test", "--ckpt_path", str(tmp_path / "hostile.ckpt")])


@pytest.mark.parametrize(
    "hostile",
    [
        {"data": {"augment": {"class_path": "spy.Augment"}}},
        {"data": {"augment": "spy.Augment"}},
        {
            "model": {
                "class_path": "flowers.CNNTask",
                "init_args": {"lr": {"class_path": "spy.Rate"}},
            }
        },
        {"freeze": {"class_path": "spy.Freeze"}},
        {
            "optimizer": {"class_path": "spy.Optimizer"},
            "lr_scheduler": {"class_path": "spy.Schedule"},
        },
    ],
    ids="-".join,
)
@pytest.mark.parametrize("verb", ["validate", "fit"])
def test_a_checkpoint_imports_nothing(verb, hostile, whole_run, tmp_path, monkeypatch):
    (tmp_path / "spy.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    checkpoint = torch.load(whole_run / "checkpoints" / "best.ckpt", weights_only=True)
    config = yaml.safe_load(checkpoint["config"])
    for key, value in hostile.items():
        config[key] = (config.get(key) or {}) | value
    AtomicCheckpointIO().save_checkpoint(
        checkpoint | {"config": yaml.safe_dump(config)}, tmp_path / "x.ckpt"
    )
    words = [verb, "--ckpt_path", str(tmp_path / "x.ckpt")]
    if "optimizer" in hostile:  # left out, as callbacks are
        config = stored_config(read_checkpoint(words[2]), verb, ckpt_path=words[2])
        assert not {"optimizer", "lr_scheduler"} & config.keys()
        return
    with pytest.raises(
        ValueError, match="its configuration names code other than a model of this package"
    ):
        training.main(words)


@pytest.mark.parametrize("words", [["--model.widths", "[8,16,32]"], ["--model.widths", "[8,24]"]])
def test_another_network_than_the_checkpoints_is_named(words, whole_run):
    with pytest.raises(
        ValueError, match=r"--ckpt_path .*: its network is CNNTask .*, the options .* define"
    ):
        training.main(
            ["validate", "--ckpt_path", str(whole_run / "checkpoints" / "best.ckpt"), *words]
        )


def test_a_smaller_image_than_the_crops_of_the_training_can_be_evaluated(whole_run):
    with pytest.warns(
        UserWarning, match="--data.image_size is 20; the checkpoint was trained with 32"
    ):
        run = training.main(
            [
                "validate",
                "--ckpt_path",
                str(whole_run / "checkpoints" / "best.ckpt"),
                "--data.image_size=20",
            ]
        )
    assert run.datamodule.image_size == 20


@pytest.mark.parametrize("content", [b"", b"a text", None])
def test_another_file_than_a_checkpoint_is_named(content, whole_run, tmp_path):
    whole = (whole_run / "checkpoints" / "best.ckpt").read_bytes()
    (tmp_path / "x.ckpt").write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(ValueError, match=r"x\.ckpt: expected a checkpoint of this project"):
        training.main(["test", "--ckpt_path", str(tmp_path / "x.ckpt")])


@pytest.mark.slow
def test_two_processes_say_to_the_last_digit_what_one_says_of_their_checkpoint(synthetic, tmp_path):
    script = tmp_path / "ddp.py"
    script.write_text(
        "import sys\n"
        "from flowers.cli import training\n"
        "run = training.main(sys.argv[1:])\n"
        "if run.trainer.is_global_zero: "
        "print({k: float(v) for k, v in run.trainer.callback_metrics.items()})\n"
    )

    def run_in_two(words):
        command = [
            sys.executable,
            str(script),
            *words,
            "--trainer.accelerator=cpu",
            "--trainer.devices=2",
        ]
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        return ast.literal_eval(ran.stdout.splitlines()[-1])

    # Nine batches to validate and to test: four for the first process, five for the second.
    small = [
        "--data.batch_size=5",
        "--data.val_fraction=0.3",
        "--data.test_fraction=0.3",
        "--model.widths=[8,16]",
    ]
    fit_args = [f"--data.root={synthetic}", *small, "--data.image_size=32", "--data.crop_size=24"]
    run_in_two(["fit", *fit_args, "--trainer.max_epochs=5", "--model.ema_decay=0.5"])
    [run] = (tmp_path / "lightning_logs").iterdir()
    best, ckpt = (
        read_checkpoint(run / "checkpoints" / "best.ckpt"),
        f"--ckpt_path={run / 'checkpoints' / 'best.ckpt'}",
    )
    validated = training.main(["validate", ckpt])
    assert 0.05 < best["calibration"]["temperature"] < 20
    assert validated.model.calibration == best["calibration"]
    events = EventAccumulator(str(run)).Reload()
    for name, value in validated.trainer.callback_metrics.items():
        assert events.Scalars(name)[best["epoch"]].value == pytest.approx(float(value), rel=1e-6), (
            name
        )

    tested = run_in_two(["test", ckpt])
    alone = {
        name: float(value)
        for name, value in training.main(["test", ckpt]).trainer.callback_metrics.items()
    }
    assert tested == pytest.approx(alone, rel=1e-6)
    # The first report is that of two processes, the second that of one.
    two, one = (json.loads((run / name).read_text()) for name in ("report.json", "report-2.json"))
    assert two["images"] == 45
    assert two["facts"].pop("Test") != one["facts"].pop("Test")  # the time it took
    assert two == one
    assert (run / "predictions.csv").read_bytes() == (run / "predictions-2.csv").read_bytes()

    with pytest.warns(
        UserWarning, match=r"processes: 1 \(before: 2\), images a step: 5 \(before: 10\)"
    ):
        training.main(
            ["fit", "--ckpt_path", "last", "--trainer.devices", "1", "--trainer.max_epochs", "6"]
        )
    assert read_checkpoint(run / "checkpoints" / "last.ckpt")["epoch"] == 5


@pytest.mark.slow
def test_two_processes_learn_what_one_with_twice_the_batch_learns(synthetic, tmp_path):
    # No batch norm, dropout and mixing of images, which look at a process's own batch.
    words = ["--model", "TransferTask", "--model.arch", "squeezenet1_1", "--model.weights", "none"]
    words += [
        "--model.dropout",
        "0",
        "--data.augment.cutmix_prob",
        "0",
        "--data.augment.mixup_prob",
        "0",
    ]
    words += ["--data.root", str(synthetic), "--data.image_size", "48", "--data.crop_size", "40"]
    words += [
        "--trainer.max_epochs",
        "3",
        "--trainer.accelerator",
        "cpu",
        "--trainer.deterministic",
        "true",
    ]
    curves = []
    for devices, batch_size in ((1, 16), (2, 8)):
        (folder := tmp_path / f"{devices}").mkdir()
        command = [
            sys.executable,
            "-m",
            "flowers",
            "fit",
            *words,
            "--trainer.devices",
            str(devices),
        ]
        ran = subprocess.run(
            [*command, "--data.batch_size", str(batch_size)],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        assert (
            "Effective batch: 16 images a step (processes: 2, --data.batch_size 8"
            in ran.stdout + ran.stderr
        ) == (devices == 2)
        events = EventAccumulator(str(folder / "lightning_logs" / "version_0")).Reload()
        names = [f"{split}/{name}" for split in ("train", "val") for name in ("loss", "acc")]
        curves.append({name: [event.value for event in events.Scalars(name)] for name in names})
    one, two = curves
    assert one["train/loss"][0] > one["train/loss"][2]
    for name, values in one.items():
        assert two[name] == pytest.approx(values, rel=2e-4), name


def test_runs_that_start_at_once_get_folders_of_their_own(tmp_path):
    folders: list[Path] = []
    threads = [
        threading.Thread(target=lambda: folders.append(claim_run_folder(tmp_path)))
        for _ in range(10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(folder.name for folder in folders) == sorted(f"version_{i}" for i in range(10))


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--model.class_path", "flowers.tasks.NoSuchTask"], "NoSuchTask"),
        (["--data.resize", "squash"], "squash"),
        (["--seed_everything", "true"], "seed_everything"),
        (["--model.class_names", "[a,b]"], "class_names"),
        (["--seed_everything", "-1"], "seed_everything"),
        (["--trainer.use_distributed_sampler", "true"], "--trainer.use_distributed_sampler"),
        (["--trainer.log_every_n_steps", "0"], "--trainer.log_every_n_steps"),
    ],
)
def test_a_wrong_option_is_named(args, said, synthetic, capsys):
    with pytest.raises(SystemExit) as caught:
        training.main(["fit", "--data.root", str(synthetic), *args])
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["validate", "test"])
def test_an_untrained_network_is_not_evaluated(verb, synthetic, capsys):
    with pytest.raises(SystemExit):
        training.main([verb, "--data.root", str(synthetic)])
    assert f"--ckpt_path: expected the checkpoint to {verb}" in capsys.readouterr().err


def test_a_missing_checkpoint_is_named():
    with pytest.raises(FileNotFoundError, match=r"latest: expected a checkpoint file"):
        training.main(["fit", "--ckpt_path", "latest"])


def test_a_checkpoint_of_other_classes_is_refused(whole_run, photos):
    root = photos(ant=10, bee=10, cat=10, dog=10, emu=10)
    with pytest.raises(ValueError, match=r"expected a checkpoint with the classes of --data\.root"):
        training.main(
            [
                "test",
                "--ckpt_path",
                str(whole_run / "checkpoints" / "best.ckpt"),
                "--data.root",
                str(root),
            ]
        )


def test_a_test_leaves_a_report_in_the_run_folder_and_a_second_one_beside_it(
    whole_run, figures, tmp_path
):
    run = shutil.copytree(
        whole_run,
        tmp_path / "run",
        ignore=shutil.ignore_patterns("report*", "predictions*", "figures*"),
    )
    ckpt = ["--ckpt_path", str(run / "checkpoints" / "best.ckpt")]
    tested = training.main(["test", *ckpt])
    names = {"report.html", "report.json", "report.md", "predictions.csv"}
    assert names <= {path.name for path in run.iterdir()}
    numbers = json.loads((run / "report.json").read_text())
    assert numbers["accuracy"] == pytest.approx(float(tested.trainer.callback_metrics["test/acc"]))
    assert numbers["log_loss"] == pytest.approx(
        float(tested.trainer.callback_metrics["test/loss"]), abs=1e-5
    )
    assert (
        numbers["temperature"]
        == torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["calibration"][
            "temperature"
        ]
    )
    assert numbers["facts"]["Data"]["test"] == "15 images"
    page = (run / "report.html").read_text()
    assert (
        page.count("data:image/svg+xml") == 7
    )  # with the curves of the training, and the reliability scaled
    names_of_figures = {file.name for file in (run / "figures").iterdir()}
    assert {"confusion_matrix.png", "training.png"} <= names_of_figures
    assert len(names_of_figures) == 7
    assert numbers["facts"]["Training"]["duration"].endswith(" min")
    wrong = numbers["images"] - numbers["right"]
    assert page.count('<div class="card">') == min(8, wrong) + min(8, numbers["right"])
    assert page.count("data:image/jpeg") == 2 * page.count(
        '<div class="card">'
    )  # each with what the network looked at
    before = {name: (run / name).read_bytes() for name in names}
    training.main(["test", *ckpt, "--report.num_examples", "0"])
    assert {name: (run / name).read_bytes() for name in names} == before
    assert {"report-2.html", "predictions-2.csv", "figures-2"} <= {
        path.name for path in run.iterdir()
    }


def test_test_time_augmentation_is_what_is_tested_and_predicted(whole_run, synthetic, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(
        whole_run, run, ignore=shutil.ignore_patterns("report*", "predictions*", "figures*")
    )
    plain = training.main(["test", "--ckpt_path", str(run)]).trainer.callback_metrics
    averaged = training.main(
        ["test", "--ckpt_path", str(run), "--model.tta", "flip+crops"]
    ).trainer.callback_metrics
    assert averaged["test/loss"] != plain["test/loss"]
    numbers = json.loads((run / "report-2.json").read_text())
    assert numbers["accuracy"] == pytest.approx(float(averaged["test/acc"]))
    assert numbers["facts"]["Test"]["test-time augmentation"] == "flip+crops"
    tested = read_predictions(run / "predictions-2.csv")
    predict([str(synthetic / path) for path in tested.paths], ckpt_path=str(run), tta="flip+crops")
    assert (read_predictions("predictions.csv", needs_labels=False).probs == tested.probs).all()


def test_predict_and_the_report_agree_to_the_last_digit_whatever_the_batch_size(
    whole_run, synthetic, tmp_path
):
    run = tmp_path / "run"
    shutil.copytree(
        whole_run, run, ignore=shutil.ignore_patterns("report*", "predictions*", "figures*")
    )
    training.main(["test", "--ckpt_path", str(run)])
    tested = [row[2:] for row in csv.reader((run / "predictions.csv").read_text().splitlines())]
    files = [str(synthetic / path) for path in read_predictions(run / "predictions.csv").paths]
    for size in (1, 32):
        predict(files, ckpt_path=str(run), batch_size=size, out=tmp_path / f"{size}.csv")
    one, many = (
        [row[2:] for row in csv.reader((tmp_path / f"{size}.csv").read_text().splitlines())]
        for size in (1, 32)
    )
    assert many == tested  # all but the path as it was given and the label
    for a, b in zip(one[1:], many[1:], strict=True):
        assert a[0] == b[0]
        assert [float(prob) for prob in a[3:]] == pytest.approx(
            [float(prob) for prob in b[3:]], abs=2e-6
        )


def test_a_checkpoint_is_calibrated_anew_and_else_left_as_it_was(whole_run, tmp_path, capsys):
    file = tmp_path / "best.ckpt"
    before = torch.load(whole_run / "checkpoints" / "best.ckpt", weights_only=True)
    torch.save({key: value for key, value in before.items() if key != "calibration"}, file)
    training.calibrate(str(file), selective_accuracy=0.5)
    assert "calibration stored" in capsys.readouterr().out
    after = torch.load(file, weights_only=True)
    assert after["calibration"]["temperature"] == pytest.approx(
        before["calibration"]["temperature"], rel=1e-4
    )
    assert after["calibration"]["selective_accuracy"] == 0.5
    assert after.keys() == before.keys()
    assert all(
        torch.equal(after["state_dict"][key], before["state_dict"][key])
        for key in before["state_dict"]
    )
    options = ["--data.batch_size", "5", "--trainer.limit_val_batches", "2"]
    with pytest.raises(ValueError, match="all validation images"):
        training.calibrate(str(file), validate_options=options)
