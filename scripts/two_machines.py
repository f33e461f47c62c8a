"""Train on two machines, cut and restore their network, resume, and compare with one machine.

The machines are network namespaces of this machine, connected by a virtual cable; they share the
disk. Needs root and iproute2's command ip.

python scripts/two_machines.py
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from flowers.checkpoint import read_checkpoint
from flowers.data import generate_flowers
from flowers.run_folder import last_checkpoint

parser = argparse.ArgumentParser(
    allow_abbrev=False, description="Train on two machines, cut their network, and resume."
)
parser.add_argument("--epochs", type=int, default=8, help="epochs of the training (8)")
parser.add_argument(
    "--timeout", type=int, default=30, help="seconds a machine waits for the other (30)"
)
args = parser.parse_args()
home = Path(tempfile.mkdtemp(prefix="two_machines_"))
MACHINES = [f"flowers{os.getpid()}_{rank}" for rank in (0, 1)]
FIT = f"""-m flowers fit --ckpt_path last --data.root {home}/data/synthetic_flowers
    --data.image_size 48 --data.crop_size 40 --model.widths [8,16] --model.ema_decay 0.9
    --model.dropout 0.2 --trainer.max_epochs {args.epochs} --trainer.accelerator cpu
    --trainer.default_root_dir """
TIMEOUT = f"0:{args.timeout // 60}:{args.timeout % 60}"
STRATEGY = f" --trainer.strategy DDPStrategy --trainer.strategy.timeout {TIMEOUT}"
# Several threads would add floats in another order. Unless an interface is named, gloo takes the
# address of the host name, which is 127.0.0.1 on both machines.
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "cable"}


def ip(words: str) -> str:
    """Run iproute2's command and return what it prints."""
    command = ["ip", *words.split()]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def connect() -> None:
    """Make the second machine and connect the two."""
    ip(f"netns add {MACHINES[1]}")
    ip(f"link add cable netns {MACHINES[0]} type veth peer name cable netns {MACHINES[1]}")
    for rank, machine in enumerate(MACHINES):
        ip(f"-n {machine} addr add 10.0.0.{rank + 1}/24 dev cable")
        for device in ("lo", "cable"):
            ip(f"-n {machine} link set {device} up")


def start_on_one() -> subprocess.Popen[bytes]:
    """Start the training with two processes on one machine."""
    command = [sys.executable, *f"{FIT} {home}/one --trainer.devices 2".split()]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with (home / "log.txt").open("wb") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def start(folder: Path) -> list[subprocess.Popen[bytes]]:
    """Start or resume the training on both machines."""
    folder.mkdir(exist_ok=True)
    processes = []
    for rank, machine in enumerate(MACHINES):
        torchrun = "-m torch.distributed.run --nnodes 2 --nproc-per-node 1 --master-addr 10.0.0.1"
        words = f"{sys.executable} {torchrun} --node-rank {rank} {FIT} {folder} {STRATEGY}"
        command = ["ip", "netns", "exec", machine, *words.split()]
        with (folder / f"log_{rank}.txt").open("ab") as log:
            processes.append(subprocess.Popen(command, env=ENVIRONMENT, stdout=log, stderr=log))
    return processes


def train_until_cut(folder: Path) -> None:
    """Cut the network after the first epoch, wait until both processes end, restore the network."""
    processes = start(folder)
    logs = [folder / f"log_{rank}.txt" for rank in (0, 1)]
    while f" 1/{args.epochs} " not in logs[0].read_text():
        for process in processes:
            assert process.poll() is None, f"{folder}: ended before the cut"
        time.sleep(0.05)
    ip(f"-n {MACHINES[1]} link set cable down")  # the other end is not notified
    began = time.monotonic()
    statuses = [process.wait(args.timeout + 60) for process in processes]
    duration = time.monotonic() - began
    assert 0 not in statuses, f"{folder}: status {statuses} after the cut"
    for log in logs:
        assert "Timed out" in log.read_text(), f"{log}: expected a message about the timeout"
    ip(f"-n {MACHINES[1]} link set cable up")
    print(f"network cut: status {statuses} after {duration:.0f} s, timeout {args.timeout} s")


def resume(folder: Path) -> float:
    """Resume, and return the largest difference of a weight from that trained on one machine."""
    statuses = [process.wait() for process in start(folder)]
    if statuses != [0, 0]:  # torch rarely aborts a process that has finished its training
        print(f"{folder}: status {statuses}, see its logs", flush=True)
    ours = read_checkpoint(str(last_checkpoint(folder)))
    expected = read_checkpoint(str(last_checkpoint(home / "one")))
    assert ours["epoch"] == expected["epoch"] == args.epochs - 1
    differences = []
    for name, value in expected["state_dict"].items():
        difference = ours["state_dict"][name].double() - value.double()
        differences.append(float(difference.abs().max()))
    return max(differences)


def remove(machine: str) -> None:
    """End the processes of a machine and remove it."""
    for number in ip(
        f"netns pids {machine}"
    ).split():  # torchrun's processes have groups of their own
        os.kill(int(number), signal.SIGKILL)
    ip(f"netns del {machine}")


try:
    ip(f"netns add {MACHINES[0]}")
except (OSError, subprocess.CalledProcessError) as error:
    parser.error(f"expected root and iproute2's ip, to make network namespaces, got {error}")
generate_flowers(home / "data" / "synthetic_flowers", per_class=60, image_size=64)
one = start_on_one()
try:
    connect()
    train_until_cut(home / "two")
    assert one.wait() == 0, f"{home}/log.txt: status {one.returncode}"
    difference = resume(home / "two")
    print(f"resumed: largest difference of a weight to one machine {difference:g}")
    print(f"logs: {home}")
    sys.exit(difference > 1e-3)
finally:
    one.terminate()  # no effect if it has ended
    for machine in MACHINES:
        remove(machine)
