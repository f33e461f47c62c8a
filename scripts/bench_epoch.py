"""Seconds of a training epoch, and the share of it that data takes, as Lightning's profiler measures them.

python scripts/bench_epoch.py --config configs/cnn.yaml [options of fit]
"""

from __future__ import annotations

import sys

from flowers import runtime

runtime.prepare()  # the allocator comes before torch
from lightning.pytorch.profilers import SimpleProfiler  # noqa: E402

from flowers.cli.training import main  # noqa: E402

EPOCHS = 3
DATA = ("train_dataloader_next", "FlowersDataModule.on_after_batch_transfer")

fixed = {"max_epochs": EPOCHS, "limit_val_batches": 0, "profiler": "simple", "logger": "false"}
fixed |= {"enable_checkpointing": "false"}
options = [f"--trainer.{name}={value}" for name, value in fixed.items()]
run = main(["fit", *sys.argv[1:], *options])
profiler = run.trainer.profiler
assert isinstance(profiler, SimpleProfiler)
totals = {action: sum(durations) for action, durations in profiler.recorded_durations.items()}
epoch = totals["run_training_epoch"]
data = sum(seconds for action, seconds in totals.items() if action.endswith(DATA))
images = run.trainer.num_training_batches * run.datamodule.batch_size * EPOCHS
print(
    f"{EPOCHS} epochs: {epoch / EPOCHS:.1f} s each, {images / epoch:.0f} images/s, data {data / epoch:.1%}"
)
