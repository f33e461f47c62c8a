"""The curves of a run, read back from TensorBoard's files."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


class Curve(NamedTuple):
    """A logged scalar.

    Args:
        epochs: Epochs that had been trained at each value ``(N,)``, with a fraction in the middle
            of one.
        values: The values ``(N,)``.
    """

    epochs: NDArray[np.float64]
    values: NDArray[np.float64]


def training_seconds(run: Path) -> float | None:
    """Return how long a run trained, from the first to the last value it logged; None if it logged nothing.

    The time between an interruption and its resumption does not count.

    Args:
        run: The run folder.
    """
    seconds = 0.0
    for file in run.glob("events.out.tfevents.*"):  # each process wrote one
        events = EventAccumulator(str(file), size_guidance={"scalars": 0}).Reload()
        times = [
            event.wall_time for tag in events.Tags()["scalars"] for event in events.Scalars(tag)
        ]
        seconds += max(times) - min(times) if times else 0.0
    return seconds or None


def read_history(run: Path) -> dict[str, Curve]:
    """Return every scalar that a run logged, by its name; empty for a folder without TensorBoard's files.

    Args:
        run: The run folder.
    """
    events = EventAccumulator(str(run), size_guidance={"scalars": 0, "tensors": 0}).Reload()
    tags = events.Tags()["scalars"]
    logged = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}
    # Lightning logs the epoch beside every other value, which says what a step means.
    ends: dict[float, int] = {}
    for event in events.Tensors("epoch") if "epoch" in events.Tags()["tensors"] else []:
        epoch = float(make_ndarray(event.tensor_proto))
        ends[epoch] = max(event.step, ends.get(epoch, event.step))
    steps, epochs = [-1, *ends.values()], [0.0, *(epoch + 1 for epoch in ends)]
    if len(steps) > 3:  # the last epoch may have been cut
        steps[-1] = max(steps[-1], 2 * steps[-2] - steps[-3])
    return {
        tag: Curve(
            np.interp([step for step, _ in points], steps, epochs),
            np.array([value for _, value in points]),
        )
        for tag, points in logged.items()
    }
