"""A run that is resumed inside an epoch trains on the remaining images."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from interruptions import signal_after

from flowers.callbacks import ResumeEpoch
from flowers.cli import training


def resume(folder, *words):
    """Resume the last run below a folder."""
    where = ["--ckpt_path", "last", "--trainer.default_root_dir", str(folder)]
    return training.main(["fit", *where, *words])


@pytest.mark.parametrize(("batch_size", "num_steps"), [(8, 1 + (120 - 32) // 8), (60, 2)])
def test_an_epoch_that_is_resumed_with_another_batch_size_has_the_steps_that_are_left(
    fit_small, batch_size, num_steps, synthetic, tmp_path
):
    one_epoch = ["--trainer.max_epochs", "1"]
    with pytest.raises(SystemExit):  # after 32 of the 120 images
        fit_small(tmp_path, synthetic, *one_epoch, *signal_after(1))
    with pytest.warns(UserWarning, match=r"processes: 1 \(before: 1\)"):
        run = resume(tmp_path, *one_epoch, "--data.batch_size", str(batch_size))
    assert run.trainer.global_step == num_steps
    assert "val/acc" in run.trainer.callback_metrics


def test_with_limit_train_batches_a_resumed_epoch_has_at_least_one_more_step(
    fit_small, synthetic, tmp_path
):
    options = ["--data.batch_size", "20", "--data.crop_size", "[16,24]"]
    options += ["--trainer.limit_train_batches", "5", "--trainer.max_epochs", "2"]
    with pytest.raises(SystemExit):
        fit_small(tmp_path, synthetic, *options, *signal_after(4))
    with pytest.warns(UserWarning, match="images a step: 10"):
        run = resume(tmp_path, "--data.batch_size", "10")
    assert run.trainer.global_step == 4 + 1 + 5


def two_processes(step, *, lowest, highest):
    """Return the trainer of the first of two processes that resume at these steps."""
    reduced = torch.tensor([highest, -lowest])
    strategy = SimpleNamespace(
        root_device=torch.device("cpu"), reduce=lambda steps, reduce_op: reduced
    )
    epoch_loop = SimpleNamespace(batch_progress=None)
    fit_loop = SimpleNamespace(restarting=False, epoch_loop=epoch_loop)
    return SimpleNamespace(
        world_size=2, global_rank=0, global_step=step, strategy=strategy, fit_loop=fit_loop
    )


def test_processes_that_resume_from_the_same_checkpoint_are_accepted():
    ResumeEpoch().on_train_start(two_processes(7, lowest=7, highest=7), None)


def test_processes_that_resume_from_different_checkpoints_are_refused():
    message = r"`ckpt_path`: .* got steps 0 to 7 \(7 in process 0\)"
    with pytest.raises(ValueError, match=message):
        ResumeEpoch().on_train_start(two_processes(7, lowest=0, highest=7), None)
