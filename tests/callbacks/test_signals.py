"""A training that is asked to end ends, and can go on."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest
import torch

SMALL = [
    "--data.image_size",
    "32",
    "--data.crop_size",
    "24",
    "--model.widths",
    "[8,16]",
    "--trainer.accelerator",
    "cpu",
]
ENDLESS = ["--trainer.max_epochs", "1000", "--early_stopping.patience", "1000", "--tensorboard.every_n_epochs", "1000"]


def start(folder, words):
    command = [sys.executable, "-m", "flowers", "fit", *words]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(file):
    for _ in range(600):
        if file.exists():
            return
        time.sleep(0.1)
    raise TimeoutError(file)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "devices"), [("SIGTERM", 1), ("SIGTERM", 2), ("SIGUSR1", 2), ("SIGINT", 1)])
def test_a_signal_ends_all_processes_with_a_status_that_tells_and_the_way_on(name, devices, drawn, tmp_path):
    number = getattr(signal, name)
    run = tmp_path / "lightning_logs" / "version_0"
    with start(tmp_path, ["--data.root", str(drawn), *SMALL, *ENDLESS, "--trainer.devices", str(devices)]) as process:
        wait_for(run / "checkpoints" / "last.ckpt")
        process.send_signal(number)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number, said
    assert f"{name}: ended in epoch " in said
    last = run / "checkpoints" / "last.ckpt"
    assert f"python -m flowers fit --ckpt_path {last}" in said
    assert torch.load(last, weights_only=True)["epoch"] >= 0


@pytest.mark.slow
def test_a_process_that_dies_takes_the_others_with_it(drawn, tmp_path):
    words = ["--data.root", str(drawn), *SMALL, *ENDLESS, "--trainer.devices", "2"]
    with start(tmp_path, words) as process:
        wait_for(tmp_path / "lightning_logs" / "version_0" / "checkpoints" / "last.ckpt")
        found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True)
        [second] = found.stdout.split()
        subprocess.run(["kill", "-KILL", second], check=True)
        said, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Error" in said
