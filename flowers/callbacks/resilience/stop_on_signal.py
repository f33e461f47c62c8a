"""Ends a training that is asked to end, so that it can go on later."""

from __future__ import annotations

import shlex
import signal
import threading
from types import FrameType
from typing import Any, NoReturn

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, Timer

from flowers.callbacks.checkpoint import SaveLast

# Of a scheduler that takes the machine back, of SLURM's --signal, and of Ctrl-C.
_SIGNALS = [
    getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGINT") if hasattr(signal, name)
]


class StopOnSignal(Checkpoint):
    """Saves ``last.ckpt`` and ends after the step in which SIGTERM, SIGUSR1 or Ctrl-C came, or the time was up.

    The status is 128 plus the signal's number, or 0 where ``--trainer.max_time`` is reached. A
    validation that is due is waited for, since a run that goes on could not tell that it is
    missing.

    All processes end after the same step, whichever of them got the signal; they ask each other
    every ``--trainer.log_every_n_steps`` steps, since it makes them wait for their devices.
    Lightning's own handler talks to the others at once, in the middle of whatever they do, and may
    wait for ever (https://github.com/Lightning-AI/pytorch-lightning/issues/20806). As a
    ``Checkpoint`` it runs after all callbacks that learn from the step, such as the average of the
    weights.
    """

    def __init__(self) -> None:
        self._received = 0  # by this process
        self._agreed = 0  # by all, after they asked each other
        self._is_time_up = False
        self._saved: str | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say so where a run that goes on has no time left, which Lightning would take for its end.

        Raises:
            ValueError: It has none.
        """
        if _is_time_up(trainer):
            raise ValueError(
                "--trainer.max_time: expected more time than the training has already taken, or null"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the signals over, from Lightning too, which gives them back when the run ends."""
        if threading.current_thread() is not threading.main_thread():
            return  # Python lets no other thread do it
        for number in _SIGNALS:
            signal.signal(number, self._receive)

    on_sanity_check_start = on_train_start

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
        """Save and end here, if one of the processes got a signal or the time is up.

        Raises:
            SystemExit: It is so.
        """
        if trainer.is_last_batch:
            return
        if trainer.should_stop and trainer.strategy.broadcast(
            _is_time_up(trainer)
        ):  # not for any other reason
            # Lightning would take what there is of the epoch for all of it.
            trainer.should_stop, self._is_time_up = False, True
        if (batch_idx + 1) % trainer.accumulate_grad_batches != 0 or _is_validation_due(
            trainer, batch_idx
        ):
            return
        asks = trainer.world_size == 1 or trainer.global_step % trainer.log_every_n_steps == 0  # type: ignore[attr-defined]
        if self._is_time_up or (asks and self._is_asked(trainer)):
            self._save(trainer)
            self._end(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save if one of the processes got a signal; what is logged of the epoch comes after this."""
        if self._is_asked(trainer) or self._is_time_up:
            self._save(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End here, if the epoch before was the last.

        Raises:
            SystemExit: It was.
        """
        if self._saved is not None:
            self._end(trainer)

    def _is_asked(self, trainer: Trainer) -> bool:
        self._agreed = self._received
        if trainer.world_size > 1:
            # Not into what the handler sets: a signal may come meanwhile.
            asked = torch.tensor(self._received, device=trainer.strategy.root_device)
            self._agreed = int(trainer.strategy.reduce(asked, reduce_op="max"))
        return self._agreed != 0

    def _save(self, trainer: Trainer) -> None:
        last = next(
            callback for callback in trainer.checkpoint_callbacks if isinstance(callback, SaveLast)
        )
        self._saved = last.save_now(trainer)

    def _end(self, trainer: Trainer) -> NoReturn:
        if trainer.is_global_zero:
            why = signal.Signals(self._agreed).name if self._agreed else "--trainer.max_time"
            start = (
                "python -m flowers fit"
                if trainer.world_size == 1
                else "start as many processes in the same way with"
            )
            more = (
                ""
                if self._agreed
                else ", with a longer --trainer.max_time: the time until now counts"
            )
            print(
                f"\n{why}: ended in epoch {trainer.current_epoch} after step {trainer.global_step}. "
                f"To go on: {start} --ckpt_path {shlex.quote(str(self._saved))}{more}",
                flush=True,
            )
        if _is_started_by_lightning(trainer):
            raise SystemExit(
                0
            )  # of another status, Lightning might kill the first process while that still ends
        raise SystemExit(128 + self._agreed if self._agreed else 0)


def _is_time_up(trainer: Trainer) -> bool:
    timers = [callback for callback in trainer.callbacks if isinstance(callback, Timer)]  # type: ignore[attr-defined]
    return any(
        remaining is not None and remaining <= 0
        for remaining in (timer.time_remaining() for timer in timers)
    )


def _is_validation_due(trainer: Trainer, batch_idx: int) -> bool:
    every: float | None = trainer.val_check_batch
    done = (
        trainer.fit_loop.total_batch_idx if trainer.check_val_every_n_epoch is None else batch_idx
    )
    return every is not None and (done + 1) % every == 0


def _is_started_by_lightning(trainer: Trainer) -> bool:
    environment = getattr(trainer.strategy, "cluster_environment", None)
    return (
        trainer.local_rank > 0
        and environment is not None
        and not environment.creates_processes_externally
    )
