"""A network in parts learns what a whole one learns, and leaves the same checkpoints."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from flowers.callbacks import ShardedStrategy
from flowers.checkpoint import read_checkpoint
from flowers.cli import training

CONFIGS = Path(__file__).parents[2] / "configs"
# What the overlay says of GPUs does not hold here; the rest does. Blocks small enough for a small network.
SHARDED = ["--config", str(CONFIGS / "fsdp.yaml"), "--trainer.accelerator", "cpu", "--trainer.precision", "32-true"]
SHARDED += ["--trainer.strategy.init_args.min_parameters", "100000"]
PARTS = ["--model", "TransferTask", "--model.arch", "mobilenet_v3_small", "--model.weights", "none"]
PARTS += ["--model.dropout", "0", "--data.image_size", "40", "--data.crop_size", "32", "--data.batch_size", "16"]
PARTS += ["--model.ema_decay", "null", "--freeze.unfreeze_epoch", "1"]
PARTS += ["--data.val_fraction", "0.3"]  # three batches, of which one process gets two
PARTS += ["--trainer.accelerator", "cpu", "--trainer.log_every_n_steps", "1", "--tensorboard.every_n_epochs", "1000"]
# One after the other in the same two processes: importing takes longer than training.
SCRIPT = """
import json, sys, warnings
from flowers.cli import training
warnings.filterwarnings("error", category=FutureWarning)
for words in json.loads(sys.argv[1]):
    training.main(["fit", *words])
"""


def fit_in_two(folder, *runs):
    (folder / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "script.py"]
    ran = subprocess.run([*command, json.dumps(runs)], cwd=folder, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


def curves(run):
    events = EventAccumulator(str(run)).Reload()
    names = ("train/loss", "train/acc", "train/grad_norm", "val/loss", "val/acc")
    return {name: [event.value for event in events.Scalars(name)] for name in names}


def last(run):
    return read_checkpoint(run / "checkpoints" / "last.ckpt")


def assert_same(sharded, whole):
    """Compare two runs: their curves, and all tensors of their checkpoints."""
    for name, values in curves(whole).items():
        assert curves(sharded)[name] == pytest.approx(values, rel=1e-3), name
    one, other = last(sharded), last(whole)
    # Of a bias before batch norm the gradient is noise, which Adam makes a step of.
    torch.testing.assert_close(one["state_dict"], other["state_dict"], rtol=1e-3, atol=2e-3)
    [one], [other] = one["optimizer_states"], other["optimizer_states"]
    assert one["param_groups"] == other["param_groups"]
    torch.testing.assert_close(one["state"], other["state"], rtol=1e-2, atol=1e-4)


@pytest.mark.slow
def test_parts_learn_what_the_whole_learns_and_either_goes_on_from_the_other(drawn, tmp_path):
    where = {name: ["--trainer.default_root_dir", str(tmp_path / name)] for name in ("whole", "sharded")}
    begin = [*PARTS, "--data.root", str(drawn), "--trainer.max_epochs", "1"]
    # The backbone was frozen until here. Each goes on as the other began, with a limit of the gradient's norm.
    go_on = ["--trainer.accelerator", "cpu", "--trainer.max_epochs", "2", "--trainer.gradient_clip_val", "0.5"]
    go_on += ["--ckpt_path", "last"]
    fit_in_two(
        tmp_path,
        [*begin, *where["whole"]],
        [*begin, *where["sharded"], *SHARDED],
        [*go_on, *where["whole"], *SHARDED],
        [*go_on, *where["sharded"]],
    )
    whole, sharded = (tmp_path / name / "lightning_logs" / "version_0" for name in where)
    assert_same(sharded, whole)
    best = str(sharded / "checkpoints" / "best.ckpt")
    validated = training.main(["validate", "--ckpt_path", best]).trainer.callback_metrics
    found = curves(sharded)
    epoch = read_checkpoint(best)["epoch"]
    assert [float(validated[f"val/{name}"]) for name in ("loss", "acc")] == pytest.approx(
        [found[f"val/{name}"][epoch] for name in ("loss", "acc")], rel=1e-3
    )


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (["--model.ema_decay", "0.9"], "--model.ema_decay"),
        (["--freeze.unfreeze_epoch", "null"], "--freeze.unfreeze_epoch"),
        (["--tensorboard.graph", "true"], "--tensorboard.graph"),
    ],
)
def test_what_does_not_go_with_it_is_refused_before_any_work(words, option, drawn, tmp_path):
    with pytest.raises(ValueError, match=f"{option}: expected .* ShardedStrategy"):
        training.main(["fit", *PARTS, *SHARDED, "--data.root", str(drawn), *words])
    assert not (tmp_path / "lightning_logs").exists()


def test_it_waits_for_others_as_long_as_it_is_told_to():
    assert ShardedStrategy(timeout=timedelta(minutes=5))._timeout == timedelta(minutes=5)
