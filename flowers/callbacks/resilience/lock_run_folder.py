"""Lock of a run folder."""

from pathlib import Path

from filelock import FileLock, Timeout
from lightning.pytorch import Callback

# The workers of a killed training hold its lock for up to five seconds.
TIMEOUT = 10.0


class LockRunFolder(Callback):
    """Locks a run folder until the end of the training, so that no second training writes into it.

    The operating system releases the lock of a process that dies.

    Args:
        run: The run folder.

    Raises:
        ValueError: Another training holds the lock.
    """

    def __init__(self, run: Path) -> None:
        self._lock = FileLock(run / ".lock")
        try:
            self._lock.acquire(timeout=TIMEOUT)
        except Timeout as error:
            raise ValueError(
                f"`ckpt_path`: another training writes into {run}. Wait until that training ends, "
                f"or stop it. If no training is running, delete {self._lock.lock_file}."
            ) from error

    def teardown(self, *args: object, **kwargs: object) -> None:
        """Release the lock."""
        self._lock.release()

    on_exception = teardown
