"""A training that is asked to end ends, and can go on."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from flowers.callbacks import SeedSteps, StopOnSignal
from flowers.cli import training

CNN = ["--model.widths", "[8,16]"]
TRANSFER = [
    "--model",
    "TransferTask",
    "--model.arch",
    "mobilenet_v3_small",
    "--model.weights",
    "none",
]
TINY = ["--data.image_size", "32", "--data.crop_size", "24", "--trainer.accelerator", "cpu"]
TINY += ["--trainer.log_every_n_steps", "1"]
SMALL = [*TINY, *CNN]
ENDLESS = [
    "--trainer.max_epochs",
    "1000",
    "--early_stopping.patience",
    "1000",
    "--tensorboard.every_n_epochs",
    "1000",
]


def start(folder, words):
    command = [sys.executable, "-m", "flowers", "fit", *words]
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_for(file):
    for _ in range(600):
        if file.exists():
            return
        time.sleep(0.1)
    raise TimeoutError(file)


class SignalAfter(SeedSteps):
    """Sends this process a signal in a step, before the other callbacks have seen the end of it."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_batch_end(self, trainer, *args, **kwargs):
        if trainer.global_step == self.step:
            signal.raise_signal(signal.SIGTERM)


def fit(folder, synthetic, *words):
    options = [
        "--model.dropout",
        "0.5",
        "--model.ema_decay",
        "0.5",
        "--data.augment.mixup_prob",
        "0.2",
    ]
    options += [
        "--data.root",
        str(synthetic),
        "--trainer.default_root_dir",
        str(folder),
        "--trainer.max_epochs",
        "3",
    ]
    return training.main(["fit", *SMALL, *options, *words])


def last(folder):
    [file] = folder.glob("lightning_logs/*/checkpoints/last.ckpt")
    return torch.load(file, weights_only=True)


def curve(folder, name):
    [run] = folder.glob("lightning_logs/*")
    return [
        (event.step, event.value) for event in EventAccumulator(str(run)).Reload().Scalars(name)
    ]


def assert_equal(ours, theirs):
    """Assert that two checkpoints have the same weights, averages, moments and metrics."""
    for part in ("state_dict", "current_model_state"):
        for name, value in theirs[part].items():
            assert torch.equal(ours[part][name], value), name
    for key, state in theirs["optimizer_states"][0]["state"].items():
        other = ours["optimizer_states"][0]["state"][key]
        assert all(torch.equal(other[name], state[name]) for name in state)
    for metric, states in theirs["train_metrics"].items():
        for name, value in states.items():
            assert torch.equal(ours["train_metrics"][metric][name], value), (metric, name)


@pytest.fixture(scope="module")
def never_ended(synthetic, tmp_path_factory):
    folder = tmp_path_factory.mktemp("never_ended")
    trainer = fit(folder, synthetic).trainer
    return dict(trainer.callback_metrics), last(folder)


# An epoch has three steps.
@pytest.mark.parametrize("step", [3, 5])
def test_a_run_that_was_asked_to_end_goes_on_exactly(
    never_ended, synthetic, tmp_path, monkeypatch, capsys, *, step
):
    with monkeypatch.context() as patch:
        patch.setattr(training, "SeedSteps", lambda: SignalAfter(step))
        with pytest.raises(SystemExit) as ended:
            fit(tmp_path, synthetic)
    assert ended.value.code == 128 + signal.SIGTERM
    assert last(tmp_path)["global_step"] == step
    said = capsys.readouterr().out
    assert (
        f"SIGTERM: ended in epoch {step // 3} after step {step}. To resume: python -m flowers fit "
        f"--ckpt_path" in said
    )
    metrics, checkpoint = never_ended
    again = training.main(
        ["fit", "--ckpt_path", "last", "--trainer.default_root_dir", str(tmp_path)]
    ).trainer
    assert_equal(last(tmp_path), checkpoint)
    assert dict(again.callback_metrics) == metrics


class SignalAtStart(SeedSteps):
    """Sends this process a signal where Lightning's own handler would end without saving."""

    def on_sanity_check_end(self, trainer, pl_module):
        signal.raise_signal(signal.SIGTERM)


def test_a_signal_before_the_first_step_ends_after_it(synthetic, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "SeedSteps", SignalAtStart)
    with pytest.raises(SystemExit) as ended:
        fit(tmp_path, synthetic)
    assert ended.value.code == 128 + signal.SIGTERM
    assert last(tmp_path)["global_step"] == 1


def test_a_signal_while_the_processes_ask_each_other_is_not_lost():
    def reduce(tensor, reduce_op):
        signal.raise_signal(signal.SIGTERM)
        return tensor

    stop, before = StopOnSignal(), signal.getsignal(signal.SIGTERM)
    strategy = SimpleNamespace(root_device=torch.device("cpu"), reduce=reduce)
    stop.on_train_start(None, None)
    try:
        assert [
            stop._is_interrupted(SimpleNamespace(world_size=2, strategy=strategy)) for _ in range(2)
        ] == [False, True]
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.slow
def test_a_validation_that_is_due_is_waited_for(synthetic, tmp_path, monkeypatch):
    halves = [
        "--data.batch_size",
        "20",
        "--trainer.val_check_interval",
        "0.5",
    ]  # after steps 3 and 6 of an epoch
    with monkeypatch.context() as patch:
        patch.setattr(training, "SeedSteps", lambda: SignalAfter(3))
        with pytest.raises(SystemExit):
            fit(tmp_path / "ended", synthetic, *halves)
    assert last(tmp_path / "ended")["global_step"] == 4
    fit(tmp_path / "never_ended", synthetic, *halves)
    training.main(
        ["fit", "--ckpt_path", "last", "--trainer.default_root_dir", str(tmp_path / "ended")]
    )
    assert_equal(last(tmp_path / "ended"), last(tmp_path / "never_ended"))
    assert len({str(curve(tmp_path / name, "val/loss")) for name in ("ended", "never_ended")}) == 1


def test_another_reason_to_stop_is_not_taken_for_the_time_limit(synthetic, tmp_path):
    # Nothing gets better by 10, so early stopping asks for an end in epoch 1, which is too early.
    options = [
        "--early_stopping.patience",
        "1",
        "--early_stopping.min_delta",
        "10",
        "--trainer.min_epochs",
        "3",
    ]
    trainer = fit(
        tmp_path,
        synthetic,
        *options,
        "--trainer.max_epochs",
        "5",
        "--trainer.max_time",
        "00:01:00:00",
    ).trainer
    assert trainer.current_epoch == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        [*CNN, "--data.cache", "false", "--data.num_workers", "1"],
        [*CNN, "--data.sampler", "balanced", "--data.batch_size", "24"],
        [*TRANSFER, "--freeze.unfreeze_epoch", "1"],
        [*TRANSFER, "--freeze.unfreeze_epoch", "null"],
    ],
)
def test_every_kind_of_run_goes_on_exactly(words, synthetic, tmp_path, monkeypatch):
    def train(name):
        where = ["--data.root", str(synthetic), "--trainer.default_root_dir", str(tmp_path / name)]
        training.main(
            ["fit", *TINY, *words, *where, "--trainer.max_epochs", "3", "--model.ema_decay", "0.5"]
        )

    train("never_ended")
    with monkeypatch.context() as patch:
        patch.setattr(training, "SeedSteps", lambda: SignalAfter(4))
        with pytest.raises(SystemExit):
            train("ended")
    training.main(
        ["fit", "--ckpt_path", "last", "--trainer.default_root_dir", str(tmp_path / "ended")]
    )
    assert_equal(last(tmp_path / "ended"), last(tmp_path / "never_ended"))


@pytest.mark.parametrize("batch_size", ["8", "60"])
def test_an_epoch_that_goes_on_with_other_steps_has_as_many_as_are_left(
    batch_size, synthetic, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(training, "SeedSteps", lambda: SignalAfter(1))
        with pytest.raises(SystemExit):
            fit(tmp_path, synthetic)  # 32 of 120 images are read
    words = [
        "--ckpt_path",
        "last",
        "--trainer.default_root_dir",
        str(tmp_path),
        "--trainer.max_epochs",
        "1",
    ]
    with pytest.warns(UserWarning, match=r"processes: 1 \(before: 1\)"):
        run = training.main(["fit", *words, "--data.batch_size", batch_size])
    assert run.trainer.global_step == {"8": 1 + (120 - 32) // 8, "60": 2}[batch_size]
    assert "val/acc" in run.trainer.callback_metrics


def test_a_time_limit_ends_as_a_signal_does_and_counts_on(never_ended, synthetic, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        fit(tmp_path, synthetic, "--trainer.max_time", '{"milliseconds": 1}')
    assert ended.value.code == 0
    assert last(tmp_path)["global_step"] == 1
    assert "--trainer.max_time: ended in epoch 0 after step 1" in capsys.readouterr().out
    words = ["--ckpt_path", "last", "--trainer.default_root_dir", str(tmp_path)]
    with pytest.raises(
        ValueError, match=r"--trainer\.max_time: expected more time than .* already taken"
    ):
        training.main(["fit", *words])
    again = training.main(["fit", *words, "--trainer.max_time", "00:01:00:00"]).trainer
    metrics, checkpoint = never_ended
    assert_equal(last(tmp_path), checkpoint)
    assert dict(again.callback_metrics) == metrics


def test_steps_that_are_accumulated_are_finished_first(synthetic, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "SeedSteps", lambda: SignalAfter(0))
    with pytest.raises(SystemExit):
        fit(tmp_path, synthetic, "--trainer.accumulate_grad_batches", "2")
    kept = last(tmp_path)
    assert kept["global_step"] == 1
    assert kept["loops"]["fit_loop"]["state_dict"]["combined_loader"] == [
        {"epoch": 0, "images": 64}
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "devices"), [("SIGTERM", 1), ("SIGTERM", 2), ("SIGUSR1", 2), ("SIGINT", 1)]
)
def test_a_signal_ends_all_processes_with_a_status_that_tells_and_the_way_on(
    name, devices, synthetic, tmp_path
):
    number = getattr(signal, name)
    run = tmp_path / "lightning_logs" / "version_0"
    with start(
        tmp_path,
        ["--data.root", str(synthetic), *SMALL, *ENDLESS, "--trainer.devices", str(devices)],
    ) as process:
        wait_for(run / "checkpoints" / "last.ckpt")
        process.send_signal(number)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number, said
    assert f"{name}: ended in epoch " in said
    last = run / "checkpoints" / "last.ckpt"
    again = (
        "python -m flowers fit" if devices == 1 else "start as many processes in the same way with"
    )
    assert f"To resume: {again} --ckpt_path {last}" in said
    assert torch.load(last, weights_only=True)["epoch"] >= 0


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells a process that its starter died"
)
@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL"])
def test_where_torchrun_ends_its_processes_save_and_end(name, synthetic, tmp_path):
    torchrun = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "flowers",
        "fit",
    ]
    command = [sys.executable, *torchrun, "--data.root", str(synthetic), *SMALL, *ENDLESS]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        wait_for(tmp_path / "lightning_logs" / "version_0" / "checkpoints" / "last.ckpt")
        process.send_signal(getattr(signal, name))
        said, _ = process.communicate(timeout=60)  # until the last of them has closed the pipe
    assert "SIGTERM: ended in epoch " in said


@pytest.mark.slow
def test_a_process_that_dies_takes_the_others_with_it(synthetic, tmp_path):
    words = ["--data.root", str(synthetic), *SMALL, *ENDLESS, "--trainer.devices", "2"]
    with start(tmp_path, words) as process:
        wait_for(tmp_path / "lightning_logs" / "version_0" / "checkpoints" / "last.ckpt")
        found = subprocess.run(
            ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
        )
        [second] = found.stdout.split()
        subprocess.run(["kill", "-KILL", second], check=True)
        said, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Error" in said
