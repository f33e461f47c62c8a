"""Training speed of two processes beside one on this CPU, one thread each, and what keeps it from twice as much.

python scripts/bench_scaling.py
"""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from statistics import median

from lightning.pytorch import Callback, LightningModule, Trainer

from flowers.data import FlowersDataModule
from flowers.runtime import silence_lightning
from flowers.tasks import CNNTask

parser = argparse.ArgumentParser(
    allow_abbrev=False, description="Compare the training speed of 1 and 2 processes."
)
parser.add_argument("--rounds", type=int, default=5, help="interleaved measurements of each (5)")
parser.add_argument(
    "--epochs", type=int, default=2, help="epochs of each measurement, after one to warm up (2)"
)
parser.add_argument(
    "--batch_size", type=int, default=32, help="images in a batch, of each process (32)"
)
parser.add_argument("--train", nargs=2, metavar=("DEVICES", "FOLDER"), help=argparse.SUPPRESS)
args = parser.parse_args()


class TimeEpochs(Callback):
    """Notes when epochs begin; of several processes' epochs every other one exchanges no gradients.

    DDP's ``no_sync`` leaves out the all-reduce and the broadcast of buffers, and nothing else: what
    an epoch takes longer with them is communication that computing does not hide, and waiting for
    the slower process.
    """

    def __init__(self) -> None:
        self.times: list[float] = []
        self.no_sync = ExitStack()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the time; the processes have just waited for each other, to sum up their metrics."""
        self.times.append(time.perf_counter())
        self.no_sync.close()
        if trainer.world_size > 1 and trainer.current_epoch % 2:
            self.no_sync.enter_context(trainer.strategy.model.no_sync())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the time."""
        self.times.append(time.perf_counter())


def train(devices: int, folder: str) -> None:
    """Train in this process, and those that Lightning starts, and print the images per second of each epoch."""
    silence_lightning()
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    data = FlowersDataModule(
        f"{folder}/drawn_flowers", batch_size=args.batch_size, cache_dir=f"{folder}/cache"
    )
    epochs, clock = 1 + args.epochs * devices, TimeEpochs()
    quiet = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    fixed = {
        "accelerator": "cpu",
        "use_distributed_sampler": False,
        "limit_val_batches": 0,
        "callbacks": [clock],
    }
    trainer = Trainer(devices=devices, max_epochs=epochs, **fixed, **quiet)
    trainer.fit(CNNTask(data.class_names), datamodule=data)
    if trainer.is_global_zero:
        spans = zip(clock.times, clock.times[1:], strict=False)
        print(*(len(data.indices["train"]) / (end - begin) for begin, end in spans))


def spread(values: list[float], form: str) -> str:
    """Return the median of some values and their range."""
    return f"{median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


if args.train:
    sys.exit(train(int(args.train[0]), args.train[1]))
rows = []
with tempfile.TemporaryDirectory() as folder:
    for _ in range(args.rounds):
        rates = []
        for devices in ("1", "2"):
            command = [sys.executable, *sys.argv, "--train", devices, folder]
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            said = subprocess.run(
                command, check=True, stdout=subprocess.PIPE, text=True, env=environment
            ).stdout
            rates.append([float(word) for word in said.splitlines()[-1].split()][1:])
        rows.append((median(rates[0]), median(rates[1][::2]), median(rates[1][1::2])))
one, apart, two = zip(*rows, strict=True)
print(
    f"images/s, median (range) of {args.rounds} rounds, {args.batch_size} images a batch of each process:"
)
print(f"  one process                   {spread(one, '.1f')}")
print(f"  two, exchanging gradients     {spread(two, '.1f')}")
print(f"  two, exchanging nothing       {spread(apart, '.1f')}")
print(
    f"two against one                 {spread([b / a for a, b in zip(one, two, strict=True)], '.2f')}"
)
print(
    f"  lost by sharing the machine   {spread([1 - b / a / 2 for a, b in zip(one, apart, strict=True)], '.1%')}"
)
print(
    f"  time spent on communication   {spread([1 - b / a for a, b in zip(apart, two, strict=True)], '.1%')}"
)
