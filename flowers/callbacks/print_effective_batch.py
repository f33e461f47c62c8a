"""The effective batch size: images per optimizer step over all processes."""

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn


class PrintEffectiveBatch(Callback):
    """Prints the effective batch size if it is not ``batch_size``; warns if resuming changed it.

    The learning rate is not scaled with the batch size: the best scaling rule depends on the
    optimizer, the network and the batch size (https://arxiv.org/abs/1811.03600).
    """

    def __init__(self) -> None:
        self._now: dict[str, int] = {}
        self._before: dict[str, int] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the effective batch size."""
        size = trainer.datamodule.batch_size  # type: ignore[attr-defined]
        processes = trainer.world_size
        accumulated = trainer.accumulate_grad_batches
        effective = size * processes * accumulated
        self._now = {"processes": processes, "effective_batch": effective}
        if effective != size:
            rank_zero_info(
                f"Effective batch: {effective} images a step (processes: {processes}, "
                f"`batch_size` {size}, `accumulate_grad_batches` {accumulated}); "
                f"`lr` is not scaled"
            )
        if not self._before or self._before == self._now:
            return
        batch = self._before["effective_batch"]
        consequence = "The order of the images is unchanged."
        if effective != batch:
            same_size = max(1, batch * size // effective)
            consequence = (
                f"The number of steps per epoch changes, and the learning rate jumps; "
                f"`batch_size` {same_size} avoids this."
            )
        rank_zero_warn(
            f"The run is resumed with other settings: processes: {processes} (before: "
            f"{self._before['processes']}), images a step: {effective} (before: {batch}). "
            f"{consequence}"
        )

    def state_dict(self) -> dict[str, int]:
        """Return the number of processes and the effective batch size."""
        return self._now

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Read the values of the run before it was interrupted."""
        self._before = state_dict
