"""Says how many images a step of all processes learns from."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn


class PrintEffectiveBatch(Callback):
    """Prints the effective batch where it is not ``--data.batch_size``, and how it changes when a run is resumed.

    The learning rate is scaled with neither: which rule holds depends on the optimizer, the network
    and the batch (https://arxiv.org/abs/1811.03600).
    """

    def __init__(self) -> None:
        self._now: dict[str, int] = {}
        self._before: dict[str, int] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print."""
        size = trainer.datamodule.batch_size  # type: ignore[attr-defined]
        processes, accumulated = trainer.world_size, trainer.accumulate_grad_batches
        effective = size * processes * accumulated
        self._now = {"processes": processes, "effective_batch": effective}
        if effective != size:
            rank_zero_info(
                f"Effective batch: {effective} images a step (processes: {processes}, --data.batch_size {size}, "
                f"--trainer.accumulate_grad_batches {accumulated}); --model.lr is not scaled with it"
            )
        if not self._before or self._before == self._now:
            return
        before, batch = self._before["processes"], self._before["effective_batch"]
        same = "The order of the images stays as it was."
        other = (
            f"An epoch has another number of steps and the learning rate jumps; with --data.batch_size "
            f"{max(1, batch * size // effective)} it would not."
        )
        rank_zero_warn(
            f"The run goes on in another way: processes: {processes} (before: {before}), images a step: {effective} "
            f"(before: {batch}). {same if effective == batch else other}"
        )

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run compares itself with."""
        return self._now

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember what the run had before."""
        self._before = state_dict
