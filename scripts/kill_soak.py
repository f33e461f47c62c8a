"""Kill and resume a training at random times; compare its weights with those without a kill.

python scripts/kill_soak.py --kills 100
"""

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
from flowers.data import generate_flowers
from flowers.run_folder import last_checkpoint

parser = argparse.ArgumentParser(allow_abbrev=False, description="Kill and resume a training.")
parser.add_argument("--kills", type=int, default=100, help="number of kills (100)")
parser.add_argument("--devices", type=int, default=1, help="processes of the training (1)")
parser.add_argument("--epochs", type=int, default=100, help="epochs of the training (100)")
parser.add_argument("--seed", type=int, default=0, help="seed of times and signals (0)")
args = parser.parse_args()
rng = random.Random(args.seed)
home = Path(tempfile.mkdtemp(prefix="kill_soak_"))
FIT = f"""-m flowers fit --ckpt_path last --data.root {home}/data/synthetic_flowers
    --data.image_size 48 --data.crop_size 40 --model.widths [8,16] --model.ema_decay 0.9
    --model.dropout 0.2 --early_stopping.patience 1000 --trainer.accelerator cpu
    --trainer.devices {args.devices}"""
# Statuses of a killed training; -SIGTERM if the signal arrives before the training handles it.
KILLED = (-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM)


def start(folder: Path) -> subprocess.Popen[bytes]:
    """Start or resume the training in a process group of its own."""
    options = f" --trainer.default_root_dir {folder} --trainer.max_epochs {args.epochs}"
    command = [sys.executable, *(FIT + options).split()]
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, process_group=0)


def ends_within(process: subprocess.Popen[bytes], timeout: float) -> bool:
    """Return whether all processes of a training end within a timeout in seconds."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        process.poll()
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


def train(folder: Path, *, kills: int = 0, startup: float = 0) -> list[str]:
    """Train to the end, kill and resume the training on the way, and return the signals.

    Args:
        folder: Folder of the run.
        kills: Maximum number of signals.
        startup: Seconds before the first epoch; a signal comes after 0.5 to 1.5 times as many.
    """
    folder.mkdir()
    step = 0
    signals: list[str] = []
    while True:
        process = start(folder)
        if len(signals) == kills or ends_within(process, rng.uniform(0.5, 1.5) * startup):
            assert process.wait() == 0, f"{folder}/log.txt: status {process.returncode}"
            return signals
        signals.append(rng.choice(["SIGKILL", "SIGTERM"]))
        process.send_signal(getattr(signal, signals[-1]))
        assert ends_within(process, 60), f"{folder}/log.txt: alive a minute after {signals[-1]}"
        status = process.returncode
        saved = {"global_step": 0, "epoch": -1}
        if file := last_checkpoint(folder):
            saved = read_checkpoint(file)
        assert saved["global_step"] >= step, f"{file}: step {saved['global_step']} after {step}"
        step = saved["global_step"]
        is_complete = status == 0 and saved["epoch"] == args.epochs - 1
        assert is_complete or status in KILLED, f"{folder}/log.txt: status {status}"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return the weights at the end of a run."""
    checkpoint = read_checkpoint(str(last_checkpoint(folder)))
    assert checkpoint["epoch"] == args.epochs - 1
    return checkpoint["state_dict"]


def largest_difference(ours: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> float:
    """Return the largest absolute difference of two networks' weights."""
    differences = [(ours[name].double() - others[name].double()).abs().max() for name in others]
    return float(torch.stack(differences).max())


generate_flowers(home / "data" / "synthetic_flowers", per_class=60, image_size=64)
began = time.time()
train(home / "uninterrupted")
[config] = home.glob("uninterrupted/lightning_logs/*/config.yaml")
startup = config.stat().st_mtime - began
expected = weights(home / "uninterrupted")
signals: list[str] = []
differences: list[float] = []
while len(signals) < args.kills:
    folder = home / f"killed_{len(differences) + 1}"
    kills = args.kills - len(signals)
    signals += train(folder, kills=kills, startup=startup)
    differences.append(largest_difference(weights(folder), expected))
    counts = f"{signals.count('SIGKILL')} SIGKILL, {signals.count('SIGTERM')} SIGTERM"
    exact = f"{differences.count(0)} of {len(differences)} runs"
    print(f"{len(signals)} kills ({counts}); {exact} equal the uninterrupted one", flush=True)
print(f"{args.devices} processes, {args.epochs} epochs; logs: {home}")
print(f"largest difference of a weight: {max(differences):g}")
tolerance = 0.0
if args.devices > 1:
    tolerance = 1e-3
sys.exit(not all(difference <= tolerance for difference in differences))
