"""Ends a training that is asked to end, so that it can go on later."""

from __future__ import annotations

import shlex
import signal
import threading
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from flowers.callbacks.checkpoint import SaveLast

# Of a scheduler that takes the machine back, of SLURM's --signal, and of Ctrl-C.
_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGINT") if hasattr(signal, name)]


class StopOnSignal(Callback):
    """Ends training after the step in which SIGTERM, SIGUSR1 or Ctrl-C came, with status 128 plus the signal's number.

    ``last.ckpt`` has the last whole epoch. All processes end after the same step, whichever of them got the signal:
    Lightning's own handler talks to the others at once, in the middle of whatever they do, and may wait for ever
    (https://github.com/Lightning-AI/pytorch-lightning/issues/20806).
    """

    def __init__(self) -> None:
        self._received = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the signals over, from Lightning too, which gives them back when the run ends."""
        if threading.current_thread() is not threading.main_thread():
            return  # Python lets no other thread do it
        for number in _SIGNALS:
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._received == number == signal.SIGINT:
            raise KeyboardInterrupt  # a second Ctrl-C does not wait
        self._received = number

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """End here if one of the processes got a signal.

        Raises:
            SystemExit: It did.
        """
        received = self._received
        if trainer.world_size > 1:
            asked = torch.tensor(received, device=trainer.strategy.root_device)
            received = int(trainer.strategy.reduce(asked, reduce_op="max"))
        if not received:
            return
        if trainer.is_global_zero:
            print(
                f"\n{signal.Signals(received).name}: ended in epoch {trainer.current_epoch} after step "
                f"{trainer.global_step}. {_way_on(trainer)}",
                flush=True,
            )
        raise SystemExit(128 + received)


def _way_on(trainer: Trainer) -> str:
    last = next((callback for callback in trainer.checkpoint_callbacks if isinstance(callback, SaveLast)), None)
    if last is None or not last.best_model_path:
        return "No epoch was whole yet, there is nothing to go on from."
    return f"To go on from the last whole epoch: python -m flowers fit --ckpt_path {shlex.quote(last.best_model_path)}"
