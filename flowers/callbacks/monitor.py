"""The metric that decides which epoch is the best and when training stops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

# Whether more or less of a metric is better, by the second part of its name: val/loss,
# val/recall/daisy.
_MODES: dict[str, Literal["min", "max"]] = {
    "loss": "min",
    "acc": "max",
    "f1": "max",
    "recall": "max",
}


def monitor_mode(monitor: str, mode: Literal["min", "max"] | None) -> Literal["min", "max"]:
    """Return whether the smallest (``min``) or the largest (``max``) value of a metric is the best.

    Args:
        monitor: Name of the metric.
        mode: What the user gave, if anything.

    Raises:
        ValueError: The user's mode contradicts the metric, or is missing for a metric of the user's
            own.
    """
    known_mode = _MODES.get(monitor.split("/")[1]) if "/" in monitor else None
    if mode is None and known_mode is None:
        raise ValueError(
            f"--checkpoint.monitor {monitor}: expected val/loss, val/acc, val/f1 or val/recall/<class>; for a metric "
            f"of your own give --checkpoint.mode min or max"
        )
    if mode is not None and known_mode not in (None, mode):
        raise ValueError(
            f"--checkpoint.mode {mode}: expected {known_mode} for --checkpoint.monitor {monitor}; leave the option "
            f"out (null), it follows from the metric"
        )
    return mode or known_mode or "max"


def linked_mode(monitor: str, mode: Literal["min", "max"] | None) -> Literal["min", "max"]:
    """Return ``monitor_mode`` without an error, for a link of options: where there is one, ``SaveBest`` raises it."""
    try:
        return monitor_mode(monitor, mode)
    except ValueError:
        return "max"


def check_monitor(monitor: str, recalls: Sequence[str]) -> None:
    """Refuse a metric that no epoch logs.

    Args:
        monitor: Name of the metric.
        recalls: Names of the classes whose recall is logged.

    Raises:
        ValueError: There is no such metric.
    """
    metrics = ["val/loss", "val/acc", "val/f1", *(f"val/recall/{name}" for name in recalls)]
    if monitor not in metrics:
        raise ValueError(f"--checkpoint.monitor {monitor}: expected one of {', '.join(metrics)}")
