from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from flowers.callbacks import AtomicCheckpointIO, SaveBest
from flowers.models import checkpoint_checksum


def epochs(best: SaveBest, *results: tuple[float, float]) -> list[int]:
    """Return which epochs, given as (accuracy, loss), would be saved as the best so far."""
    saved = []
    for epoch, (accuracy, loss) in enumerate(results):
        metrics = {"val/acc": torch.tensor(accuracy), "val/loss": torch.tensor(loss)}
        trainer = SimpleNamespace(
            callback_metrics=metrics, current_epoch=epoch, strategy=SimpleNamespace(reduce_boolean_decision=bool)
        )
        if best.check_monitor_top_k(trainer, metrics[best.monitor]):
            saved.append(epoch)
            best.best_model_score, best.best_k_models = metrics[best.monitor], {"best.ckpt": metrics[best.monitor]}
            best.kth_best_model_path = "best.ckpt"
    return saved


def test_the_best_is_the_higher_accuracy_and_of_equals_the_lower_loss():
    best = SaveBest()
    assert epochs(best, (0.5, 2.0), (0.6, 3.0), (0.6, 2.5), (0.6, 2.7), (0.5, 0.1), (0.7, 9.0)) == [0, 1, 2, 5]
    assert (best.best_epoch, best.best_loss) == (5, 9.0)


def test_another_monitor_can_be_less_is_better():
    assert epochs(SaveBest("val/loss", mode="min"), (0.5, 2.0), (0.6, 3.0), (0.6, 1.0)) == [0, 2]


def test_a_failed_write_leaves_the_previous_checkpoint_whole(tmp_path, monkeypatch):
    file = tmp_path / "checkpoints" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"epoch": 1, "state_dict": {}}, file)

    def full_disk(checkpoint, opened):
        opened.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        AtomicCheckpointIO().save_checkpoint({"epoch": 2, "state_dict": {}}, file)
    assert torch.load(file, weights_only=True)["epoch"] == 1


SAVE_FOR_EVER = """
import itertools, sys, torch
from flowers.callbacks import AtomicCheckpointIO
for epoch in itertools.count():
    state = {"weight": torch.full((200_000,), float(epoch))}
    AtomicCheckpointIO().save_checkpoint({"epoch": epoch, "state_dict": state}, sys.argv[1])
    print(epoch, flush=True)
"""


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(tmp_path):
    file = tmp_path / "last.ckpt"
    with subprocess.Popen(
        [sys.executable, "-c", SAVE_FOR_EVER, str(file)], stdout=subprocess.PIPE, text=True
    ) as process:
        process.stdout.readline()
        for _ in range(300):  # what another process sees at any moment is what a kill would leave
            checkpoint = torch.load(file, weights_only=True)
            assert checkpoint["checksum"] == checkpoint_checksum(checkpoint)
            assert (checkpoint["state_dict"]["weight"] == checkpoint["epoch"]).all()
        process.kill()
    saved = torch.load(file, weights_only=True)
    assert saved["epoch"] > 3
    assert saved["checksum"] == checkpoint_checksum(saved)
