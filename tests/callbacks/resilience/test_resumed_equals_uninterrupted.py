"""A run that is interrupted in any way and resumed equals one that was never interrupted."""

from __future__ import annotations

import shutil
import signal

import pytest
import torch
from interruptions import fail_after, kill_after, signal_after
from lightning.pytorch import Callback
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torchvision.models import get_model

from flowers import callbacks
from flowers.cli import training

# Options that make training depend strongly on the state of the random number generators and of the
# averaged weights.
RANDOM = ["--model.dropout", "0.5", "--model.ema_decay", "0.5", "--data.augment.mixup_prob", "0.2"]
RANDOM += ["--trainer.max_epochs", "3"]
TINY = ["--data.image_size", "32", "--data.crop_size", "24", "--trainer.accelerator", "cpu"]
TINY += ["--trainer.log_every_n_steps", "1"]
CNN = ["--model", "CNNTask", "--model.widths", "[8,16]"]
ARCH = "mobilenet_v3_small"
TRANSFER = ["--model", "TransferTask", "--model.arch", ARCH]


def run_of(folder):
    """Return the run folder of the only run below a folder."""
    [run] = folder.glob("lightning_logs/*")
    return run


def resume(folder, *words):
    """Resume the last run below a folder, and return its trainer."""
    where = ["--ckpt_path", "last", "--trainer.default_root_dir", str(folder)]
    return training.main(["fit", *where, *words]).trainer


def curve(run, name):
    """Return the steps and values of a curve in TensorBoard."""
    events = EventAccumulator(str(run)).Reload().Scalars(name)
    return [(event.step, event.value) for event in events]


def assert_equal(ours, theirs):
    """Assert that two checkpoints have the same weights, averages, moments and metrics."""
    for part in ("state_dict", "current_model_state"):
        assert ours[part].keys() == theirs[part].keys()
        for name, value in theirs[part].items():
            assert torch.equal(ours[part][name], value), name
    for key, state in theirs["optimizer_states"][0]["state"].items():
        other = ours["optimizer_states"][0]["state"][key]
        assert other.keys() == state.keys()
        for name, value in state.items():
            assert torch.equal(other[name], value), name
    for metric, states in theirs["train_metrics"].items():
        for name, value in states.items():
            assert torch.equal(ours["train_metrics"][metric][name], value), (metric, name)


@pytest.fixture(scope="module")
def uninterrupted(fit_small, load_last, synthetic, tmp_path_factory):
    """Return the metrics and the last checkpoint of a run of three epochs."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    trainer = fit_small(folder, synthetic, *RANDOM).trainer
    return dict(trainer.callback_metrics), load_last(run_of(folder))


@pytest.mark.slow
def test_a_run_that_was_killed(
    small_options, load_last, finished_run, *, synthetic, tmp_path, forkserver
):
    folders = ["--data.root", str(synthetic), "--trainer.default_root_dir", str(tmp_path)]
    words = ["fit", *small_options, *folders, *kill_after(8)]
    process = forkserver.Process(target=training.main, args=(words,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    run = run_of(tmp_path)
    assert load_last(run)["epoch"] == 1
    training.main(["fit", "--ckpt_path", str(run / "checkpoints" / "last.ckpt")])
    assert run_of(tmp_path) == run  # it is resumed in its own folder
    assert_equal(load_last(run), load_last(finished_run))
    best = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    expected = torch.load(finished_run / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["epoch"] == expected["epoch"]


# At the end of an epoch, and inside of one.
@pytest.mark.parametrize(("step", "name"), [(3, "SIGTERM"), (5, "SIGINT")])
def test_a_run_that_was_interrupted_by_a_signal(
    fit_small, load_last, uninterrupted, step, name, *, synthetic, tmp_path, caplog
):
    with pytest.raises(SystemExit) as ended:
        fit_small(tmp_path, synthetic, *RANDOM, *signal_after(step, name))
    assert ended.value.code == 128 + signal.Signals[name]
    assert load_last(run_of(tmp_path))["global_step"] == step
    message = (
        f"{name}: ended in epoch {step // 3} after step {step}. To resume: python -m flowers fit "
        f"--ckpt_path"
    )
    assert message in caplog.text
    metrics, checkpoint = uninterrupted
    trainer = resume(tmp_path)
    assert_equal(load_last(run_of(tmp_path)), checkpoint)
    assert dict(trainer.callback_metrics) == metrics


def test_a_run_that_was_interrupted_by_its_time_limit(
    fit_small, load_last, uninterrupted, *, synthetic, tmp_path, caplog
):
    limit = ["--trainer.max_time", '{"milliseconds": 1}']
    with pytest.raises(SystemExit) as ended:
        fit_small(tmp_path, synthetic, *RANDOM, *limit)
    assert ended.value.code == 0
    assert load_last(run_of(tmp_path))["global_step"] == 1
    assert "--trainer.max_time: ended in epoch 0 after step 1" in caplog.text
    message = r"--trainer\.max_time: expected more time than .* already taken"
    with pytest.raises(ValueError, match=message):
        resume(tmp_path)
    trainer = resume(tmp_path, "--trainer.max_time", "00:01:00:00")
    metrics, checkpoint = uninterrupted
    assert_equal(load_last(run_of(tmp_path)), checkpoint)
    assert dict(trainer.callback_metrics) == metrics


@pytest.mark.slow
def test_a_run_that_was_interrupted_before_a_validation(fit_small, load_last, synthetic, tmp_path):
    # Epochs of six steps, validated after the third and the sixth.
    halves = ["--data.batch_size", "20", "--trainer.val_check_interval", "0.5"]
    interrupted = tmp_path / "interrupted"
    with pytest.raises(SystemExit):
        fit_small(interrupted, synthetic, *RANDOM, *halves, *signal_after(3))
    # The run ends one step later, because the validation comes first.
    assert load_last(run_of(interrupted))["global_step"] == 4
    uninterrupted = tmp_path / "uninterrupted"
    fit_small(uninterrupted, synthetic, *RANDOM, *halves)
    resume(interrupted)
    assert_equal(load_last(run_of(interrupted)), load_last(run_of(uninterrupted)))
    expected = curve(run_of(uninterrupted), "val/loss")
    assert curve(run_of(interrupted), "val/loss") == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        [*CNN, "--data.cache", "false", "--data.num_workers", "1"],
        [*CNN, "--data.sampler", "balanced", "--data.batch_size", "24"],
        [*TRANSFER, "--model.weights", "none", "--freeze.unfreeze_epoch", "1"],
        [*TRANSFER, "--model.weights", "none", "--freeze.unfreeze_epoch", "null"],
    ],
)
def test_every_kind_of_run(words, load_last, synthetic, tmp_path):
    options = ["--trainer.max_epochs", "3", "--model.ema_decay", "0.5"]

    def train(folder, *more):
        where = ["--data.root", str(synthetic), "--trainer.default_root_dir", str(folder)]
        training.main(["fit", *TINY, *words, *where, *options, *more])

    train(tmp_path / "uninterrupted")
    with pytest.raises(SystemExit):
        train(tmp_path / "interrupted", *signal_after(4))
    resume(tmp_path / "interrupted")
    interrupted = load_last(run_of(tmp_path / "interrupted"))
    assert_equal(interrupted, load_last(run_of(tmp_path / "uninterrupted")))


@pytest.mark.slow
def test_a_run_that_failed_while_unfreezing(load_last, synthetic, tmp_path):
    torch.manual_seed(1)
    pretrained = get_model(ARCH, weights=None).state_dict()
    weights = tmp_path / "weights.pth"
    torch.save(pretrained, weights)
    words = [*TINY, "--data.root", str(synthetic), "--data.batch_size", "32", *TRANSFER]
    words += ["--model.weights", str(weights), "--trainer.max_epochs", "3"]
    # The head learns alone, then with the last of two stages, then with both.
    words += ["--freeze.unfreeze_epoch", "1", "--freeze.stages", "2"]
    failed = tmp_path / "failed"
    with pytest.raises(RuntimeError, match="no more"):
        training.main(["fit", *words, "--trainer.default_root_dir", str(failed), *fail_after(5)])
    uninterrupted = tmp_path / "uninterrupted"
    training.main(["fit", *words, "--trainer.default_root_dir", str(uninterrupted)])
    weights.unlink()  # a checkpoint is restored without them
    assert load_last(run_of(failed))["epoch"] == 0
    resume(failed)
    expected = load_last(run_of(uninterrupted))
    assert_equal(load_last(run_of(failed)), expected)
    # All of the network has learnt in the end.
    first = "features.0.0.weight"
    assert not torch.equal(pretrained[first], expected["state_dict"][f"net.backbone.{first}"])


class KeepBestOfFirstEpoch(Callback):
    """Copies the best checkpoint of the first epoch."""

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            shutil.copy(trainer.checkpoint_callbacks[0].best_model_path, "first.ckpt")


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "validations", "epochs"), [("max", 1, 0), ("min", 2, 1)])
def test_a_run_that_is_resumed_from_a_validation_inside_an_epoch(
    synthetic, tmp_path, monkeypatch, *, mode, validations, epochs
):
    # Epochs of six steps, validated after the third and the sixth. The monitored learning rate
    # falls between them; it is known beforehand, unlike the metrics that may be monitored.
    monkeypatch.setattr(callbacks, "check_monitor", lambda monitor, recalls: None)
    words = [*TINY, *CNN, "--data.crop_size", "[16,24]", "--data.batch_size", "20"]
    words += ["--data.root", str(synthetic), "--trainer.default_root_dir", str(tmp_path)]
    words += ["--trainer.max_epochs", "2", "--trainer.val_check_interval", "0.5"]
    words += ["--checkpoint.monitor", "train/lr/weights", "--checkpoint.mode", mode]
    training.main(["fit", *words, "--trainer.callbacks+", f"{__name__}.KeepBestOfFirstEpoch"])
    assert torch.load("first.ckpt", weights_only=True)["global_step"] == 3 * validations
    training.main(["fit", "--ckpt_path", "first.ckpt"])
    uninterrupted = tmp_path / "lightning_logs" / "version_0"
    resumed = tmp_path / "lightning_logs" / "version_1"
    assert curve(resumed, "val/loss") == curve(uninterrupted, "val/loss")[validations:]
    assert curve(resumed, "train/loss") == curve(uninterrupted, "train/loss")[epochs:]
