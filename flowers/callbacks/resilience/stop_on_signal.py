"""Ending training on a signal, so that it can be resumed."""

import shlex
import signal
import threading
from typing import NoReturn

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, Timer
from lightning.pytorch.utilities import rank_zero_info

from flowers.callbacks.save_checkpoint import SaveLast
from flowers.checkpoint import model_option


class StopOnSignal(Checkpoint):
    """Saves ``last.ckpt`` and ends training after SIGTERM, SIGUSR1, Ctrl-C, or the time limit.

    Training ends after the current optimizer step; at the end of an epoch, after its validation. If
    a validation inside an epoch is due, training ends after the step that follows the validation,
    because a resumed run would skip the validation. The exit status is 128 plus the signal's
    number, or 0 when ``max_time`` was reached.

    All processes end after the same step, even if only one received the signal. They exchange the
    signal every ``log_every_n_steps`` steps only, because the exchange waits for the devices.
    Lightning's own handler communicates in the middle of a step and may wait for ever
    (https://github.com/Lightning-AI/pytorch-lightning/issues/20806).

    It is a ``Checkpoint`` because Lightning calls these last, after the callbacks that change state
    in a step, such as the averaging of the weights.
    """

    _received = 0  # signal of this process
    _agreed = 0  # signal of any process, after they exchanged it
    _is_time_up = False
    _saved: str | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that a resumed run has time left; Lightning would end it without a message.

        Raises:
            ValueError: The run has no time left.
        """
        if _is_time_up(trainer):
            raise ValueError(
                "`max_time`: expected more time than the training has already taken, or null"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Replace the signal handlers of Lightning, which restores the original ones at the end."""
        if threading.current_thread() is not threading.main_thread():
            return  # Python allows it in the main thread only
        # Job schedulers send SIGTERM, SLURM can send SIGUSR1 (which Windows lacks), Ctrl-C sends
        # SIGINT.
        for name in ("SIGTERM", "SIGUSR1", "SIGINT"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), self._receive)

    on_sanity_check_start = on_train_start

    def _receive(self, number: int, frame: object) -> None:
        if self._received == number == signal.SIGINT:
            raise KeyboardInterrupt  # a second Ctrl-C ends at once
        self._received = number

    def on_train_batch_end(self, trainer: Trainer, *args: object) -> None:
        """Save and end training if a process received a signal or the time limit was reached.

        Raises:
            SystemExit: With status 128 + signal number, or 0 when the time limit was reached.
        """
        if trainer.is_last_batch:
            return
        if trainer.should_stop and trainer.strategy.broadcast(_is_time_up(trainer)):
            # Lightning would end the epoch here as if it were complete.
            trainer.should_stop = False
            self._is_time_up = True
        num_batches = trainer.fit_loop.batch_idx + 1
        if num_batches % trainer.accumulate_grad_batches != 0 or _is_validation_due(trainer):
            return
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        exchanges = trainer.world_size == 1 or trainer.global_step % every == 0
        if self._is_time_up or (exchanges and self._is_interrupted(trainer)):
            self._save(trainer)
            self._end(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save if training is interrupted; it ends after the metrics of the epoch are logged."""
        if self._is_interrupted(trainer) or self._is_time_up:
            self._save(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End training if it was interrupted at the end of the last epoch.

        Raises:
            SystemExit: As in ``on_train_batch_end``.
        """
        if self._saved is not None:
            self._end(trainer)

    def _is_interrupted(self, trainer: Trainer) -> bool:
        """Return whether any process received a signal; all processes must call it."""
        self._agreed = self._received
        if trainer.world_size > 1:
            # The handler may change ``_received`` at any time, so the result is in ``_agreed``.
            received = torch.tensor(self._received, device=trainer.strategy.root_device)
            self._agreed = int(trainer.strategy.reduce(received, reduce_op="max"))
        return self._agreed != 0

    def _save(self, trainer: Trainer) -> None:
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, SaveLast):
                self._saved = callback.save_now(trainer)

    def _end(self, trainer: Trainer) -> NoReturn:
        start = "python -m flowers fit"
        if trainer.world_size > 1:
            start = "start as many processes in the same way with"
        reason = "`max_time`"
        hint = ", with a longer `max_time`, which includes the time so far"
        if self._agreed:
            reason = signal.Signals(self._agreed).name
            hint = ""
        rank_zero_info(
            f"\n{reason}: ended in epoch {trainer.current_epoch} after step "
            f"{trainer.global_step}. To resume: {start} `ckpt_path` "
            f"{shlex.quote(str(self._saved))}{model_option(trainer.lightning_module)}{hint}"
        )
        # Lightning might kill the first process before it ends, if another process that Lightning
        # started ends with a status other than 0.
        environment = getattr(trainer.strategy, "cluster_environment", None)
        is_started_by_lightning = environment and not environment.creates_processes_externally
        if self._agreed == 0 or (is_started_by_lightning and trainer.local_rank > 0):
            raise SystemExit(0)
        raise SystemExit(128 + self._agreed)


def _is_time_up(trainer: Trainer) -> bool:
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Timer):
            seconds = callback.time_remaining()
            if seconds is not None and seconds <= 0:
                return True
    return False


def _is_validation_due(trainer: Trainer) -> bool:
    every: float | None = trainer.val_check_batch
    if every is None:
        return False
    batch_idx = trainer.fit_loop.batch_idx
    if trainer.check_val_every_n_epoch is None:
        batch_idx = trainer.fit_loop.total_batch_idx
    return (batch_idx + 1) % every == 0
