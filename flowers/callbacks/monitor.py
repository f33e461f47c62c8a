"""The metric that selects the best epoch and stops training early."""

from typing import Literal

Mode = Literal["min", "max"]
# Keys are the second parts of metric names such as val/loss and val/recall/daisy.
_MODES: dict[str, Mode] = {"loss": "min", "acc": "max", "f1": "max", "recall": "max"}


def monitor_mode(monitor: str, mode: Mode | None) -> Mode:
    """Return whether the smallest (``min``) or the largest (``max``) value of a metric is the best.

    Args:
        monitor: Name of the metric.
        mode: The mode that the user gave, or None.

    Raises:
        ValueError: The user's mode contradicts the metric, or is missing for an unknown metric.
    """
    _, _, name = monitor.partition("/")
    known_mode = _MODES.get(name.partition("/")[0], mode)
    if known_mode is None:
        raise ValueError(
            f"`monitor` {monitor}: expected val/loss, val/acc, val/f1 or val/recall/<class>; for a "
            f"metric of your own give `mode` min or max"
        )
    if mode not in (None, known_mode):
        raise ValueError(
            f"`mode` {mode}: expected {known_mode} for `monitor` {monitor}; leave `mode` out "
            f"(null), because it follows from the metric"
        )
    return known_mode


def check_monitor(monitor: str, recalls: list[str]) -> None:
    """Check that a metric is logged.

    Args:
        monitor: Name of the metric.
        recalls: Names of the classes whose recall is logged.

    Raises:
        ValueError: The metric is not logged.
    """
    metrics = ["val/loss", "val/acc", "val/f1", *(f"val/recall/{name}" for name in recalls)]
    if monitor not in metrics:
        raise ValueError(f"`monitor` {monitor}: expected one of {', '.join(metrics)}")
