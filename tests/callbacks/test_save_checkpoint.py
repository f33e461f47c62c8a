"""``AtomicCheckpointIO``, ``SaveBest`` and ``SaveLast``."""

from __future__ import annotations

import itertools
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from zipfile import ZipFile

import numpy as np
import pytest
import torch

from flowers.callbacks import AtomicCheckpointIO, SaveBest
from flowers.cli import training
from flowers.evaluation import read_history


def epochs(best: SaveBest, *results: tuple[float, float]) -> list[int]:
    """Return which epochs, given as (accuracy, loss), would be saved as the best so far."""
    saved = []
    for epoch, (accuracy, loss) in enumerate(results):
        metrics = {"val/acc": torch.tensor(accuracy), "val/loss": torch.tensor(loss)}
        trainer = SimpleNamespace(
            callback_metrics=metrics,
            current_epoch=epoch,
            strategy=SimpleNamespace(reduce_boolean_decision=bool),
        )
        if best.check_monitor_top_k(trainer, metrics[best.monitor]):
            saved.append(epoch)
            best.best_model_score = metrics[best.monitor]
            best.best_k_models = {"best.ckpt": metrics[best.monitor]}
            best.kth_best_model_path = "best.ckpt"
    return saved


def test_the_best_epoch_has_the_highest_accuracy_and_among_equals_the_lowest_loss():
    best = SaveBest()
    results = [(0.5, 2.0), (0.6, 3.0), (0.6, 2.5), (0.6, 2.7), (0.5, 0.1), (0.7, 9.0)]
    assert epochs(best, *results) == [0, 1, 2, 5]
    assert (best.best_epoch, best.best_loss) == (5, 9.0)


def test_of_a_monitored_loss_the_lowest_is_the_best():
    assert epochs(SaveBest("val/loss"), (0.5, 2.0), (0.6, 3.0), (0.6, 1.0)) == [0, 2]


@pytest.mark.parametrize("epochs", [1, 3])
def test_the_last_epoch_is_validated(epochs, fit_small, synthetic, tmp_path):
    options = [f"--trainer.max_epochs={epochs}", "--trainer.check_val_every_n_epoch=2"]
    run = fit_small(tmp_path, synthetic, *options)
    folder = tmp_path / "lightning_logs" / "version_0"
    assert len(read_history(folder)["val/acc"].values) == (epochs + 1) // 2
    assert (folder / "checkpoints" / "best.ckpt").is_file()
    assert run.trainer.current_epoch == epochs


def test_after_a_failed_write_the_previous_checkpoint_is_unchanged(tmp_path, monkeypatch):
    file = tmp_path / "checkpoints" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"epoch": 1, "state_dict": {}}, file)

    def full_disk(checkpoint, opened):
        opened.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        AtomicCheckpointIO().save_checkpoint({"epoch": 2, "state_dict": {}}, file)
    assert torch.load(file, weights_only=True)["epoch"] == 1


@pytest.mark.slow
def test_on_a_full_disk_the_previous_checkpoint_is_unchanged(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if (
        shutil.which("mount") is None
        or subprocess.run(mount, check=False, capture_output=True).returncode != 0
    ):
        pytest.skip("mounting a small disk is not allowed here")
    try:
        state = {"weight": torch.ones(150_000)}  # 600 kB: one fits, two do not
        AtomicCheckpointIO().save_checkpoint({"epoch": 1, "state_dict": state}, disk / "last.ckpt")
        for _ in range(2):
            with pytest.raises(
                OSError,
                match=r"No space left on device, the previous checkpoint is unchanged.*last\.ckpt",
            ):
                AtomicCheckpointIO().save_checkpoint(
                    {"epoch": 2, "state_dict": state}, disk / "last.ckpt"
                )
            saved = torch.load(disk / "last.ckpt", weights_only=True)
            assert saved["epoch"] == 1
            assert ZipFile(disk / "last.ckpt").testzip() is None
        # The unfinished file is deleted, because it would fill the disk.
        assert [file.name for file in disk.iterdir()] == ["last.ckpt"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def _save_endlessly(file: Path) -> None:
    first = 0
    if file.exists():
        first = int(torch.load(file, weights_only=True)["epoch"]) + 1
    for epoch in itertools.count(first):
        state = {"weight": torch.full((200_000,), float(epoch))}
        AtomicCheckpointIO().save_checkpoint({"epoch": epoch, "state_dict": state}, file)


@pytest.mark.slow
def test_a_process_killed_at_any_moment_leaves_a_complete_checkpoint(tmp_path, forkserver):
    file = tmp_path / "last.ckpt"
    epochs = []
    for wait in np.random.default_rng(0).uniform(0, 0.05, size=30):
        process = forkserver.Process(target=_save_endlessly, args=(file,))
        process.start()
        before = file.stat().st_mtime_ns if file.exists() else 0
        while process.is_alive() and (not file.exists() or file.stat().st_mtime_ns == before):
            time.sleep(0.001)  # until it saves for the first time
        time.sleep(wait)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        saved = torch.load(file, weights_only=True)
        assert ZipFile(file).testzip() is None
        assert (saved["state_dict"]["weight"] == saved["epoch"]).all()
        epochs.append(saved["epoch"])
    assert epochs == sorted(epochs)
    assert epochs[-1] > 100


def test_a_moved_run_resumes_in_its_new_place(load_last, one_epoch_run, tmp_path):
    run = one_epoch_run.rename(tmp_path / "moved")
    best = run / "checkpoints" / "best.ckpt"
    first_epoch = torch.load(best, weights_only=True)["epoch"]
    last = run / "checkpoints" / "last.ckpt"
    training.main(["fit", "--ckpt_path", str(last), "--trainer.max_epochs=2"])
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    checkpoint = load_last(run)
    assert checkpoint["epoch"] == 1
    [name] = [name for name in checkpoint["callbacks"] if name.startswith("SaveBest")]
    if checkpoint["callbacks"][name]["best_epoch"] < 1:
        assert torch.load(best, weights_only=True)["epoch"] == first_epoch
