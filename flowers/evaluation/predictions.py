"""A model's predictions as they stand in a file."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

# First columns of a table of predictions, whoever writes it; the classes follow.
PREDICTION_COLUMNS = ("path", "label", "predicted", "rejected", "error")


@dataclass(frozen=True)
class PredictionTable:
    """The predictions of a network for N images.

    Args:
        class_names: Names of the K classes.
        paths: Paths of the images, relative to the root.
        labels: Integers ``(N,)`` that index the class names; -1 for an unknown label.
        probs: Probabilities ``(N, K)``.
    """

    class_names: tuple[str, ...]
    paths: tuple[str, ...]
    labels: NDArray[np.int64]
    probs: NDArray[np.float64]

    @property
    def predicted(self) -> NDArray[np.int64]:
        """The most probable class of each image ``(N,)``."""
        return self.probs.argmax(axis=1)

    @property
    def confidence(self) -> NDArray[np.float64]:
        """The probability of the predicted class ``(N,)``."""
        confidence: NDArray[np.float64] = self.probs.max(axis=1)
        return confidence

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether the predicted class is the label ``(N,)``."""
        correct: NDArray[np.bool_] = self.predicted == self.labels
        return correct


def read_predictions(file: str | Path, *, needs_labels: bool = True) -> PredictionTable:
    """Read a table of predictions, as ``test``, ``predict`` and ``cross_validate`` write it.

    An image that stands there several times, as in a cross-validation of several seeds, gets its
    mean probabilities. Rows of images that could not be read are left out.

    Args:
        file: CSV file with ``PREDICTION_COLUMNS`` and the classes.
        needs_labels: Whether a row without a label is an error; else its label is -1.

    Raises:
        OSError: The file cannot be read.
        ValueError: It has other columns, a label without a column, or numbers that are no
            probabilities.
    """
    with open(file, newline="", encoding="utf-8", errors="surrogateescape") as opened:  # noqa: PTH123
        header, *lines = [*csv.reader(opened)] or [[]]
    lines = [line for line in lines if line]
    columns = [*PREDICTION_COLUMNS]
    if header[: len(columns)] != columns or not lines:
        raise ValueError(
            f"{file}: expected the columns {', '.join(columns)} and the classes, as test, predict and cross_validate "
            f"write them, got {', '.join(header) or 'an empty file'}"
        )
    short = next((number for number, line in enumerate(lines, 2) if len(line) != len(header)), None)
    if short is not None:
        raise ValueError(
            f"{file}: expected {len(header)} columns in each line, got another number in line {short}"
        )
    lines = [line for line in lines if not line[columns.index("error")]]
    if not lines:
        raise ValueError(f"{file}: expected predictions, got none: no image could be read")
    names = header[len(columns) :]
    unknown = sorted({line[1] for line in lines} - {*names, ""})
    if unknown:
        raise ValueError(
            f"{file}: expected a column for each label, got none for {', '.join(unknown)}"
        )
    if needs_labels and not all(line[1] for line in lines):
        raise ValueError(
            f"{file}: expected labelled images, as of test; predict does not know the labels"
        )
    paths = [*dict.fromkeys(line[0] for line in lines)]
    position = {name: number for number, name in enumerate(paths)}
    where = np.array([position[line[0]] for line in lines])
    sums = np.zeros((len(paths), len(names)))
    counts = np.zeros((len(paths), 1))
    try:
        np.add.at(sums, where, np.array([line[len(columns) :] for line in lines], dtype=np.float64))
    except ValueError as error:
        raise ValueError(
            f"{file}: expected a probability for every class in each line ({error})"
        ) from error
    np.add.at(counts, where, 1)
    _check_probs(sums / counts, names, file=file)
    labels = np.zeros(len(paths), dtype=np.int64)
    labels[where] = [names.index(line[1]) if line[1] else -1 for line in lines]
    return PredictionTable(tuple(names), tuple(paths), labels, sums / counts)


def _check_probs(probs: NDArray[np.float64], names: list[str], *, file: str | Path) -> None:
    if len(names) < 2:
        raise ValueError(
            f"{file}: expected the probabilities of at least two classes, got {len(names)}"
        )
    # Written with few digits, the probabilities of a row do not sum to 1 exactly.
    good = (
        np.isfinite(probs).all(axis=1)
        & (probs >= 0).all(axis=1)
        & (np.abs(probs.sum(axis=1) - 1) < 1e-2)
    )
    if not good.all():
        raise ValueError(
            f"{file}: expected probabilities, got {probs[~good][0].tolist()} for an image"
        )


def predictions_csv(predictions: PredictionTable, *, threshold: float | None = None) -> str:
    """Return predictions as a table with ``PREDICTION_COLUMNS`` and the probability of each class.

    Args:
        predictions: Of labelled images.
        threshold: A smaller probability is rejected; None where it is not known.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    names = predictions.class_names
    writer.writerow([*PREDICTION_COLUMNS, *names])
    for path, label, probs in zip(
        predictions.paths, predictions.labels, predictions.probs, strict=True
    ):
        rejected = None if threshold is None else not probs.max() >= threshold
        writer.writerow(prediction_row(path, probs, names, label=names[label], rejected=rejected))
    return text.getvalue()


def prediction_row(
    path: str,
    probs: Sequence[float] | NDArray[np.float64],
    class_names: Sequence[str],
    *,
    label: str = "",
    rejected: bool | None = None,
) -> list[str]:
    """Return a row of the table for an image.

    Args:
        path: Of the image.
        probs: Probabilities ``(K,)``.
        class_names: Names of the K classes.
        label: Its label, where it is known.
        rejected: Whether the probability is below the checkpoint's threshold, where it is known.
    """
    predicted = class_names[int(np.argmax(probs))]
    first = [path, label, predicted, "" if rejected is None else str(rejected), ""]
    return first + [f"{prob:.7g}" for prob in probs]


def error_row(path: str, error: str, class_names: Sequence[str]) -> list[str]:
    """Return a row of the table for an image that cannot be read."""
    return [path, "", "", "", error] + [""] * len(class_names)
