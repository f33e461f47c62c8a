"""Train on two machines, cut the cable between them, mend it and go on; compare the ends with that of one machine.

The machines are network namespaces of this one, joined by a cable of its own; they share the disk.
Needs root and ip.

python scripts/two_machines.py
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from flowers.checkpoint import read_checkpoint
from flowers.run_folder import last_checkpoint

parser = argparse.ArgumentParser(
    allow_abbrev=False, description="Train on two machines, and cut their cable."
)
parser.add_argument("--epochs", type=int, default=8, help="epochs of the training (8)")
parser.add_argument(
    "--timeout", type=int, default=30, help="seconds a machine waits for the other (30)"
)
args = parser.parse_args()
home, names = (
    Path(tempfile.mkdtemp(prefix="two_machines_")),
    [f"flowers{os.getpid()}_{n}" for n in (1, 2)],
)
OPTIONS = "--data.image_size 48 --data.crop_size 40 --model.widths [8,16] --model.ema_decay 0.9 --model.dropout 0.2"
FIT = [
    "-m",
    "flowers",
    "fit",
    "--ckpt_path",
    "last",
    *OPTIONS.split(),
    "--trainer.max_epochs",
    str(args.epochs),
]
FIT += ["--trainer.accelerator", "cpu", "--data.root", str(home / "data" / "drawn_flowers")]
WAIT = f"--trainer.strategy DDPStrategy --trainer.strategy.timeout 0:{args.timeout // 60}:{args.timeout % 60}"
ONE = os.environ | {"OMP_NUM_THREADS": "1"}  # more threads add in another order
TWO = ONE | {
    "GLOO_SOCKET_IFNAME": "cable"
}  # gloo's own choice is the address of the machine's name: 127.0.0.1 in both


def ip(words: str) -> str:
    """Run iproute2's command."""
    return subprocess.run(
        ["ip", *words.split()], check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def start(folder: Path) -> list[subprocess.Popen[bytes]]:
    """Start the training on both machines, or go on with it."""
    folder.mkdir(exist_ok=True)
    processes = []
    for rank, name in enumerate(names):
        torchrun = f"torch.distributed.run --nnodes 2 --nproc-per-node 1 --node-rank {rank} --master-addr 10.0.0.1"
        command = [
            "ip",
            "netns",
            "exec",
            name,
            sys.executable,
            "-m",
            *torchrun.split(),
            *FIT,
            *WAIT.split(),
        ]
        log = (folder / f"log_{rank}.txt").open("ab")
        command += ["--trainer.default_root_dir", str(folder)]
        processes.append(subprocess.Popen(command, env=TWO, stdout=log, stderr=log))
    return processes


def difference(folder: Path) -> float:
    """Return the largest difference of a weight to that of the training on one machine."""
    ours, alone = (read_checkpoint(str(last_checkpoint(run))) for run in (folder, home / "alone"))
    assert ours["epoch"] == alone["epoch"] == args.epochs - 1
    pairs = [
        (ours["state_dict"][name].double(), value.double())
        for name, value in alone["state_dict"].items()
    ]
    return max(float((one - other).abs().max()) for one, other in pairs)


try:
    ip(f"netns add {names[0]}")
except (OSError, subprocess.CalledProcessError) as error:
    parser.error(
        f"expected root, and ip of Debian's iproute2, to make network namespaces, got {error}"
    )
try:
    ip(f"netns add {names[1]}")
    ip(f"link add cable netns {names[0]} type veth peer name cable netns {names[1]}")
    for number, name in enumerate(names, 1):
        ip(f"-n {name} addr add 10.0.0.{number}/24 dev cable")
        for device in ("lo", "cable"):
            ip(f"-n {name} link set {device} up")
    alone = [
        sys.executable,
        *FIT,
        "--trainer.devices",
        "2",
        "--trainer.default_root_dir",
        str(home / "alone"),
    ]
    with (home / "log.txt").open("wb") as log:
        subprocess.run(alone, env=ONE, stdout=log, stderr=log, check=True)
    statuses = [process.wait() for process in start(home / "whole")]
    assert statuses == [0, 0], f"{home}/whole: status {statuses}"
    print(
        f"two machines: largest difference of a weight to one machine {difference(home / 'whole'):g}",
        flush=True,
    )

    processes, log = start(home / "cut"), home / "cut" / "log_0.txt"
    while f" 1/{args.epochs} " not in log.read_text():
        assert all(process.poll() is None for process in processes), f"{log}: ended before the cut"
        time.sleep(0.05)
    ip(
        f"-n {names[1]} link set cable down"
    )  # the other end notices no more than that nothing comes
    began = time.monotonic()
    statuses = [process.wait(args.timeout + 60) for process in processes]
    seconds = time.monotonic() - began
    assert 0 not in statuses, f"{log}: status {statuses} after the cut"
    assert all("Timed out" in (home / "cut" / f"log_{rank}.txt").read_text() for rank in (0, 1)), (
        "no word of the cut"
    )
    print(
        f"cable cut: status {statuses} after {seconds:.0f} s, {args.timeout} of them the timeout",
        flush=True,
    )

    ip(f"-n {names[1]} link set cable up")
    statuses = [process.wait() for process in start(home / "cut")]
    assert statuses == [0, 0], f"{home}/cut: status {statuses}"
    differences = [difference(home / run) for run in ("whole", "cut")]
    print(
        f"cable mended: largest difference of a weight to one machine {differences[1]:g}; logs: {home}"
    )
    sys.exit(max(differences) > 1e-3)
finally:
    for name in names:
        for number in ip(
            f"netns pids {name}"
        ).split():  # torchrun's children are in sessions of their own
            os.kill(int(number), signal.SIGKILL)
        ip(f"netns del {name}")
