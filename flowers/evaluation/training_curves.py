"""Read the logged scalars of a run from its TensorBoard files."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray


class Curve(NamedTuple):
    """A logged scalar.

    Args:
        epochs: Number of epochs trained when each value was logged ``(N,)``; may be fractional.
        values: The values ``(N,)``.
    """

    epochs: NDArray[np.float64]
    values: NDArray[np.float64]


def training_seconds(run: Path) -> float | None:
    """Return the seconds from the first to the last logged value of a training.

    The time between an interruption and the resumption does not count. None if nothing was logged.

    Args:
        run: The run folder.
    """
    seconds = 0.0
    for file in run.glob("events.out.tfevents.*"):  # one file for each start of the training
        events = EventAccumulator(str(file), size_guidance={"scalars": 0}).Reload()
        times = []
        for tag in events.Tags()["scalars"]:
            times += [event.wall_time for event in events.Scalars(tag)]
        if times:
            seconds += max(times) - min(times)
    return seconds or None


def read_history(run: Path) -> dict[str, Curve]:
    """Return every scalar of a run by its name; empty for a folder without TensorBoard files.

    Args:
        run: The run folder.
    """
    events = EventAccumulator(str(run), size_guidance={"scalars": 0, "tensors": 0}).Reload()
    steps, epochs = _epoch_ends(events)
    curves = {}
    for tag in events.Tags()["scalars"]:
        points = [(scalar.step, scalar.value) for scalar in events.Scalars(tag)]
        scalar_steps, values = np.array(points).T
        curves[tag] = Curve(np.interp(scalar_steps, steps, epochs), values)
    return curves


def _epoch_ends(events: EventAccumulator) -> tuple[list[int], list[float]]:
    """Return the last step of each epoch, and the number of epochs trained by then.

    Whenever Lightning logs scalars, it logs the current epoch at the same step.
    """
    last_steps: dict[float, int] = {}
    if "epoch" in events.Tags()["tensors"]:
        for event in events.Tensors("epoch"):
            epoch = float(make_ndarray(event.tensor_proto))
            last_steps[epoch] = max(event.step, last_steps.get(epoch, event.step))
    steps = [-1, *last_steps.values()]
    epochs = [0.0, *(epoch + 1 for epoch in last_steps)]
    if len(steps) > 3:  # an interrupted last epoch gets the length of the one before
        steps[-1] = max(steps[-1], 2 * steps[-2] - steps[-3])
    return steps, epochs
