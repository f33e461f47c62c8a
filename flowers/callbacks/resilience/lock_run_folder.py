"""Keeps a second training out of a run folder."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout
from lightning.pytorch import Callback, LightningModule, Trainer

# The loader's workers of a killed training see within five seconds that it is gone, and hold its
# lock until then.
_PATIENCE = 10.0


class LockRunFolder(Callback):
    """Holds the lock of a run folder from here to the end of the training, so that no second one goes on there.

    The system releases the lock of a process that dies.

    Args:
        run: The run folder.

    Raises:
        ValueError: Another training holds it.
    """

    def __init__(self, run: Path) -> None:
        self._lock = FileLock(run / ".lock")
        try:
            self._lock.acquire(timeout=_PATIENCE)
        except Timeout as error:
            raise ValueError(
                f"--ckpt_path: another training writes into {run}. Wait for its end, or end it. (If none is running, "
                f"its lock was left on a file system that cannot release it: delete {self._lock.lock_file}.)"
            ) from error

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Release the lock."""
        self._lock.release()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Release the lock."""
        self._lock.release()
