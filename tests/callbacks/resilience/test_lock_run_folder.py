"""One training at a time writes into a run folder."""

from __future__ import annotations

import pytest
from filelock import FileLock

from flowers.callbacks import SeedSteps
from flowers.callbacks.resilience import lock_run_folder
from flowers.cli import training

SMALL = ["--data.image_size", "32", "--data.crop_size", "24", "--model.widths", "[8,16]"]
SMALL += ["--trainer.accelerator", "cpu", "--trainer.log_every_n_steps", "1"]


def test_a_second_training_in_a_run_folder_is_refused_and_changes_nothing(
    synthetic, tmp_path, monkeypatch
):
    monkeypatch.setattr(lock_run_folder, "_TIMEOUT", 0.1)
    training.main(["fit", *SMALL, "--data.root", str(synthetic), "--trainer.max_epochs", "1"])
    run = tmp_path / "lightning_logs" / "version_0"
    go_on = ["fit", "--ckpt_path", "last", "--trainer.max_epochs", "2"]

    def files():
        return {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.name != ".lock"}

    before = files()
    with (
        FileLock(run / ".lock"),
        pytest.raises(ValueError, match=r"--ckpt_path: another training writes into .*_0\."),
    ):
        training.main(go_on)
    assert files() == before
    assert training.main(go_on).trainer.current_epoch == 2


class Fails(SeedSteps):
    def on_train_start(self, trainer, pl_module):
        raise RuntimeError("no more")


def test_a_training_that_fails_lets_go_of_its_folder(synthetic, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "SeedSteps", Fails)
    with pytest.raises(RuntimeError, match="no more"):
        training.main(["fit", *SMALL, "--data.root", str(synthetic), "--trainer.max_epochs", "1"])
    with FileLock(tmp_path / "lightning_logs" / "version_0" / ".lock", timeout=0) as lock:
        assert lock.is_locked
