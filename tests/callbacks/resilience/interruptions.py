"""Callbacks that interrupt a training, and the options of ``fit`` that add them."""

from __future__ import annotations

import os
import signal

from lightning.pytorch import Callback


class SignalAfter(Callback):
    """Sends this process a signal in a step, before the package's callbacks see the end of it."""

    def __init__(self, step: int, name: str = "SIGTERM"):
        self.step = step
        self.name = name

    def on_train_batch_end(self, trainer, *args, **kwargs):
        if trainer.global_step == self.step:
            signal.raise_signal(signal.Signals[self.name])


class KillAfter(Callback):
    """Ends this process as ``kill -9`` does, in a step."""

    def __init__(self, step: int):
        self.step = step

    def on_train_batch_end(self, trainer, *args, **kwargs):
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


class FailAfter(Callback):
    """Raises an error in a step."""

    def __init__(self, step: int):
        self.step = step

    def on_train_batch_end(self, trainer, *args, **kwargs):
        if trainer.global_step == self.step:
            raise RuntimeError("no more")


class SignalAtStart(Callback):
    """Sends this process SIGTERM where Lightning's own handler would end without saving."""

    def on_sanity_check_end(self, trainer, pl_module):
        signal.raise_signal(signal.SIGTERM)


class InterruptAtStart(Callback):
    """Sends this process Ctrl-C before the first step, where Python's handler answers it."""

    def setup(self, trainer, pl_module, stage):
        signal.raise_signal(signal.SIGINT)


class InterruptTwice(Callback):
    """Sends this process Ctrl-C twice in the first step."""

    def on_train_batch_start(self, trainer, *args, **kwargs):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)


class FailAtStart(Callback):
    """Raises an error before the first step."""

    def on_train_start(self, trainer, pl_module):
        raise RuntimeError("no more")


def signal_after(step: int, name: str = "SIGTERM") -> list[str]:
    return [*_add_callback("SignalAfter", step), "--trainer.callbacks.name", name]


def kill_after(step: int) -> list[str]:
    return _add_callback("KillAfter", step)


def fail_after(step: int) -> list[str]:
    return _add_callback("FailAfter", step)


def _add_callback(name: str, step: int) -> list[str]:
    return ["--trainer.callbacks+", f"{__name__}.{name}", "--trainer.callbacks.step", str(step)]
