from __future__ import annotations

import pytest
import torch
from torch.utils.tensorboard import SummaryWriter

from flowers.evaluation import read_history, training_seconds


def test_the_duration_leaves_out_the_time_between_two_starts(tmp_path):
    for start in (1000, 5000):  # interrupted, and resumed much later
        with SummaryWriter(str(tmp_path), filename_suffix=f".{start}") as writer:
            for step in range(3):
                writer.add_scalar("val/acc", 0.5, step, walltime=start + 10 * step)
    assert training_seconds(tmp_path) == pytest.approx(40)


@pytest.mark.parametrize("every", [1, 3, 4])
def test_the_history_of_a_run_is_read_in_epochs(tmp_path, every):
    with SummaryWriter(str(tmp_path)) as writer:
        for step in range(12):  # three epochs of four steps
            if step % every == 0:  # Lightning logs the epoch with every other value
                writer.add_scalar("train/loss_step", step / 10, step)
                writer.add_tensor("epoch", torch.tensor(step // 4), step)
            if step % 4 == 3:
                writer.add_scalar("val/acc", 0.5, step)
                writer.add_tensor("epoch", torch.tensor(step // 4), step)
    curves = read_history(tmp_path)
    assert set(curves) == {"train/loss_step", "val/acc"}
    loss = curves["train/loss_step"]
    steps = range(0, 12, every)
    assert loss.epochs.tolist() == pytest.approx([(step + 1) / 4 for step in steps])
    assert loss.values.tolist() == pytest.approx([step / 10 for step in steps])
    assert curves["val/acc"].epochs.tolist() == pytest.approx([1, 2, 3])


def test_an_interrupted_epoch_counts_in_part(tmp_path):
    with SummaryWriter(str(tmp_path)) as writer:
        for step in range(10):  # two epochs of four steps, and half of the third
            writer.add_scalar("train/loss_step", 0.0, step)
            writer.add_tensor("epoch", torch.tensor(step // 4), step)
    assert read_history(tmp_path)["train/loss_step"].epochs[-1] == pytest.approx(2.5)


def test_a_folder_without_tensorboard_files_has_no_curves(tmp_path):
    assert read_history(tmp_path) == {}
    assert training_seconds(tmp_path) is None
