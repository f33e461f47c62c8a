"""One training at a time writes into a run folder."""

from __future__ import annotations

import pytest
from filelock import FileLock

from flowers.callbacks.resilience import lock_run_folder
from flowers.cli import training


def modification_times(run):
    """Return the time of the last change of every file of a run but its lock."""
    return {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.name != ".lock"}


def test_a_second_training_in_a_run_folder_is_refused_and_changes_nothing(
    one_epoch_run, monkeypatch
):
    monkeypatch.setattr(lock_run_folder, "TIMEOUT", 0.1)
    resume = ["fit", "--ckpt_path", str(one_epoch_run), "--trainer.max_epochs", "2"]
    before = modification_times(one_epoch_run)
    message = r"--ckpt_path: another training writes into .*_0\."
    with FileLock(one_epoch_run / ".lock"), pytest.raises(ValueError, match=message):
        training.main(resume)
    assert modification_times(one_epoch_run) == before
    assert training.main(resume).trainer.current_epoch == 2


def test_a_training_that_fails_releases_the_lock(fit_small, synthetic, tmp_path):
    with pytest.raises(RuntimeError, match="no more"):
        fit_small(tmp_path, synthetic, "--trainer.callbacks+", "interruptions.FailAtStart")
    file = tmp_path / "lightning_logs" / "version_0" / ".lock"
    with FileLock(file, timeout=0) as lock:
        assert lock.is_locked
