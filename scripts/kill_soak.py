"""Kill a training at random times, resume it each time, and compare the end with that of one left alone.

python scripts/kill_soak.py --kills 100
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from flowers.checkpoint import read_checkpoint
from flowers.data import draw_flowers
from flowers.run_folder import last_checkpoint

parser = argparse.ArgumentParser(
    allow_abbrev=False, description="Kill and resume a training at random times."
)
parser.add_argument("--kills", type=int, default=100, help="how often (100)")
parser.add_argument("--devices", type=int, default=1, help="processes of the training (1)")
parser.add_argument("--epochs", type=int, default=100, help="epochs of the training (100)")
parser.add_argument("--seed", type=int, default=0, help="of times and signals (0)")
args = parser.parse_args()
rng, home = random.Random(args.seed), Path(tempfile.mkdtemp(prefix="kill_soak_"))
OPTIONS = "--data.image_size 48 --data.crop_size 40 --model.widths [8,16] --model.ema_decay 0.9 --model.dropout 0.2"
COMMAND = [sys.executable, "-m", "flowers", "fit", "--ckpt_path", "last", *OPTIONS.split()]
COMMAND += ["--early_stopping.patience", "1000", "--trainer.devices", str(args.devices)]
COMMAND += ["--trainer.accelerator", "cpu", "--data.root", str(home / "data" / "drawn_flowers")]


def start(folder: Path, epochs: int) -> subprocess.Popen[bytes]:
    """Start the training, or go on with it, in a session of its own."""
    log, words = (folder / "log.txt").open("ab"), ["--trainer.default_root_dir", folder]
    command = [*COMMAND, *words, "--trainer.max_epochs", str(epochs)]
    return subprocess.Popen(command, stdout=log, stderr=log, process_group=0)


def has_ended(process: subprocess.Popen[bytes], within: float) -> bool:
    """Return whether all processes of a training end in time (seconds); a killed first must not leave others."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        process.poll()
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


def run(
    folder: Path, kills: int, brief: float, epochs: int = args.epochs
) -> tuple[list[str], float]:
    """Train to the end, killed up to so many times; return the signals, and the seconds from the last start.

    ``brief`` is how long one epoch takes with all that comes before it, which is most of it.
    """
    folder.mkdir()
    step, signals = 0, []
    while True:
        process, began = start(folder, epochs), time.monotonic()
        if len(signals) >= kills or has_ended(process, rng.uniform(0.3, 1.3) * brief):
            assert process.wait() == 0, f"{folder}/log.txt: status {process.returncode}"
            return signals, time.monotonic() - began
        signals.append(rng.choice(["SIGKILL", "SIGTERM"]))
        process.send_signal(getattr(signal, signals[-1]))
        assert has_ended(process, 60), f"{folder}/log.txt: still there a minute after {signals[-1]}"
        file, status = last_checkpoint(folder), process.returncode
        saved = read_checkpoint(file) if file else {"global_step": 0, "epoch": -1}
        before, step = step, saved["global_step"]
        assert step >= before, f"{file}: step {step} after step {before}"
        told = {
            -signal.SIGKILL,
            -signal.SIGTERM,
            128 + signal.SIGTERM,
        }  # the second before training begins
        assert status in told or (status, saved["epoch"]) == (0, epochs - 1), (
            f"{folder}/log.txt: status {status}"
        )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return the weights at the end of a run."""
    checkpoint = read_checkpoint(str(last_checkpoint(folder)))
    assert checkpoint["epoch"] == args.epochs - 1
    return checkpoint["state_dict"]


draw_flowers(home / "data" / "drawn_flowers", per_class=60, image_size=64)
_, brief = run(home / "brief", 0, 0, epochs=1)
run(home / "alone", 0, 0)
expected, found, number, exact, worst = weights(home / "alone"), [], 0, 0, 0.0
while len(found) < args.kills:
    number += 1
    found += run(home / f"killed_{number}", args.kills - len(found), brief)[0]
    ours = weights(home / f"killed_{number}")
    exact += all(torch.equal(ours[name], value) for name, value in expected.items())
    worst = max(
        worst,
        *(
            float((ours[name].double() - value.double()).abs().max())
            for name, value in expected.items()
        ),
    )
    counts = ", ".join(f"{found.count(name)} {name}" for name in ("SIGKILL", "SIGTERM"))
    print(
        f"{len(found)} kills ({counts}); {exact} of {number} runs end as one left alone, bit for bit",
        flush=True,
    )
print(
    f"{args.devices} processes, {args.epochs} epochs, largest difference of a weight: {worst:g}; logs: {home}"
)
sys.exit(exact < number if args.devices == 1 else worst > 1e-3)
