"""A model's predictions as they stand in a file."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


@dataclass(frozen=True)
class Predictions:
    """What a network said of N images.

    Args:
        class_names: Names of the K classes.
        paths: Paths of the images, relative to the root.
        labels: Integers ``(N,)`` that index the class names.
        probs: Probabilities ``(N, K)``.
    """

    class_names: tuple[str, ...]
    paths: tuple[str, ...]
    labels: NDArray[np.int64]
    probs: NDArray[np.float64]

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether the class with the largest probability is the label ``(N,)``."""
        right: NDArray[np.bool_] = self.probs.argmax(axis=1) == self.labels
        return right


def read_predictions(file: str | Path) -> Predictions:
    """Read a CSV file with the columns ``path, label, predicted`` and after them one of each class.

    An image that stands there several times, as in a cross-validation of several seeds, gets its mean probabilities.

    Raises:
        OSError: The file cannot be read.
        ValueError: It has other columns, a label without a column, or numbers that are no probabilities.
    """
    with open(file, newline="", encoding="utf-8", errors="surrogateescape") as opened:  # noqa: PTH123
        header, *lines = [*csv.reader(opened)] or [[]]
    if not {"path", "label", "predicted"} <= set(header) or not any(lines):
        raise ValueError(
            f"{file}: expected the columns path, label, predicted and the classes, as python -m flowers predict and "
            f"scripts/cross_validate.py write them, got {', '.join(header) or 'an empty file'}"
        )
    first_class = header.index("predicted") + 1
    names, path, label = header[first_class:], header.index("path"), header.index("label")
    lines = [line for line in lines if line]
    short = next((number for number, line in enumerate(lines, 2) if len(line) != len(header)), None)
    if short is not None:
        raise ValueError(f"{file}: expected {len(header)} columns in each line, got another number in line {short}")
    unknown = sorted({line[label] for line in lines} - set(names))
    if unknown:
        raise ValueError(f"{file}: expected a column for each label, got none for {', '.join(unknown)}")
    paths = [*dict.fromkeys(line[path] for line in lines)]
    position = {name: number for number, name in enumerate(paths)}
    where = np.array([position[line[path]] for line in lines])
    sums, counts = np.zeros((len(paths), len(names))), np.zeros((len(paths), 1))
    try:
        np.add.at(sums, where, np.array([line[first_class:] for line in lines], dtype=np.float64))
    except ValueError as error:
        raise ValueError(f"{file}: expected a probability for every class in each line ({error})") from error
    np.add.at(counts, where, 1)
    _check_probs(sums / counts, names, file=file)
    labels = np.zeros(len(paths), dtype=np.int64)
    labels[where] = [names.index(line[label]) for line in lines]
    return Predictions(tuple(names), tuple(paths), labels, sums / counts)


def _check_probs(probs: NDArray[np.float64], names: list[str], *, file: str | Path) -> None:
    if len(names) < 2:
        raise ValueError(f"{file}: expected the probabilities of at least two classes, got {len(names)}")
    # Written with few digits, the probabilities of a row do not sum to 1 exactly.
    good = np.isfinite(probs).all(axis=1) & (probs >= 0).all(axis=1) & (np.abs(probs.sum(axis=1) - 1) < 1e-2)
    if not good.all():
        raise ValueError(f"{file}: expected probabilities, got {probs[~good][0].tolist()} for an image")


def predictions_csv(predictions: Predictions) -> str:
    """Return predictions as CSV: path, label, predicted, and the probability of each class."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    names = predictions.class_names
    writer.writerow(["path", "label", "predicted", *names])
    for path, label, probs in zip(predictions.paths, predictions.labels, predictions.probs, strict=True):
        writer.writerow([path, names[label], names[probs.argmax()], *(f"{prob:.7g}" for prob in probs)])
    return text.getvalue()
