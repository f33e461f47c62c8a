"""After a signal, or at its time limit, a training saves and ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from interruptions import signal_after

from flowers import runtime
from flowers.__main__ import main
from flowers.callbacks import SaveLast, StopOnSignal

ENDLESS = ["--trainer.max_epochs", "1000", "--early_stopping.patience", "1000"]
ENDLESS += ["--tensorboard.every_n_epochs", "1000"]


def start(folder, words):
    """Start ``fit`` in another process."""
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


def test_a_signal_before_the_first_step_ends_the_training_after_it(
    fit_small, load_last, synthetic, tmp_path
):
    with pytest.raises(SystemExit) as ended:
        fit_small(tmp_path, synthetic, "--trainer.callbacks+", "interruptions.SignalAtStart")
    assert ended.value.code == 128 + signal.SIGTERM
    assert load_last(tmp_path / "lightning_logs" / "version_0")["global_step"] == 1


@pytest.mark.parametrize("callback", ["InterruptAtStart", "InterruptTwice"])
def test_ctrl_c_before_the_first_step_or_twice_ends_with_its_status(
    callback, small_options, synthetic, monkeypatch, capsys
):
    monkeypatch.setattr(runtime, "prepare", lambda: None)
    words = [*small_options, "--data.root", str(synthetic)]
    # After Ctrl-C, Lightning ignores the signal; another test may have left it so.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert main(["fit", *words, "--trainer.callbacks+", f"interruptions.{callback}"]) == 130
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert "Traceback" not in capsys.readouterr().err


def test_a_signal_during_the_exchange_of_signals_is_not_lost(monkeypatch):
    class CountSaves(SaveLast):
        num_saves = 0

        def save_now(self, trainer):
            self.num_saves += 1
            return "last.ckpt"

    def reduce(tensor, reduce_op):
        signal.raise_signal(signal.SIGTERM)
        return tensor

    save_last = CountSaves()
    strategy = SimpleNamespace(root_device=torch.device("cpu"), reduce=reduce)
    trainer = SimpleNamespace(world_size=2, strategy=strategy, checkpoint_callbacks=[save_last])
    stop = StopOnSignal()
    handlers = {}
    for name in ("SIGTERM", "SIGUSR1", "SIGINT"):
        handlers[name] = signal.getsignal(getattr(signal, name))
    stop.on_train_start(trainer, None)
    try:
        stop.on_train_epoch_end(trainer, None)
        assert save_last.num_saves == 0
        stop.on_train_epoch_end(trainer, None)
        assert save_last.num_saves == 1
    finally:
        for name, handler in handlers.items():
            signal.signal(getattr(signal, name), handler)


def test_early_stopping_before_min_epochs_is_not_taken_for_the_time_limit(
    fit_small, synthetic, tmp_path
):
    # Nothing improves by 10, so early stopping requests an end in epoch 1, before min_epochs.
    options = ["--early_stopping.patience", "1", "--early_stopping.min_delta", "10"]
    options += ["--trainer.min_epochs", "3", "--trainer.max_epochs", "5"]
    options += ["--trainer.max_time", "00:01:00:00"]
    assert fit_small(tmp_path, synthetic, *options).trainer.current_epoch == 3


def test_an_accumulated_step_is_completed_first(fit_small, load_last, synthetic, tmp_path):
    with pytest.raises(SystemExit):
        fit_small(tmp_path, synthetic, "--trainer.accumulate_grad_batches", "2", *signal_after(0))
    checkpoint = load_last(tmp_path / "lightning_logs" / "version_0")
    assert checkpoint["global_step"] == 1
    [loader] = checkpoint["loops"]["fit_loop"]["state_dict"]["combined_loader"]
    assert loader == {"epoch": 0, "images": 64}


@pytest.mark.slow
def test_a_signal_ends_all_processes_with_its_status_and_prints_how_to_resume(
    small_options, synthetic, tmp_path
):
    words = [*small_options, "--data.root", str(synthetic), *ENDLESS]
    last = tmp_path / "lightning_logs" / "version_0" / "checkpoints" / "last.ckpt"
    with start(tmp_path, [*words, "--trainer.devices", "2"]) as process:
        wait_for(last)
        process.send_signal(signal.SIGUSR1)
        printed, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGUSR1, printed
    assert "SIGUSR1: ended in epoch " in printed
    assert f"To resume: start as many processes in the same way with --ckpt_path {last}" in printed
    assert torch.load(last, weights_only=True)["epoch"] >= 0


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells a process that its parent died"
)
@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL"])
def test_processes_of_an_interrupted_torchrun_save_and_end(
    name, small_options, synthetic, tmp_path
):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "-m", "flowers", "fit", *small_options, *ENDLESS]
    command += ["--data.root", str(synthetic), "--trainer.devices", "2"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        wait_for(tmp_path / "lightning_logs" / "version_0" / "checkpoints" / "last.ckpt")
        process.send_signal(getattr(signal, name))
        printed, _ = process.communicate(timeout=60)  # until the last process closes the pipe
    assert "SIGTERM: ended in epoch " in printed


@pytest.mark.slow
def test_a_process_that_dies_ends_the_others(small_options, synthetic, tmp_path):
    words = [*small_options, "--data.root", str(synthetic), *ENDLESS, "--trainer.devices", "2"]
    with start(tmp_path, words) as process:
        wait_for(tmp_path / "lightning_logs" / "version_0" / "checkpoints" / "last.ckpt")
        children = subprocess.run(
            ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
        )
        [second] = children.stdout.split()
        subprocess.run(["kill", "-KILL", second], check=True)
        printed, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Error" in printed
