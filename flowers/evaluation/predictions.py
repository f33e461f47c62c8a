"""The table of predictions that ``test``, ``predict`` and ``cross_validate`` write as CSV."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flowers.csv_files import csv_cell, csv_name, csv_text, read_csv

# The first columns of the file. A column of probabilities for each class follows.
PREDICTION_COLUMNS = ("path", "label", "predicted", "rejected", "error")


@dataclass(frozen=True)
class PredictionTable:
    """The predictions of a network for N images.

    Args:
        class_names: Names of the K classes.
        paths: Paths of the images, relative to the root.
        labels: Indices of the class names ``(N,)``; -1 for an unknown label.
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
        return self.probs.max(axis=1)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether the predicted class is the label ``(N,)``."""
        return self.predicted == self.labels

    @property
    def accuracy(self) -> float:
        """Fraction of the images whose predicted class is the label."""
        return float(self.correct.mean())


def read_predictions(file: str | Path, *, needs_labels: bool = True) -> PredictionTable:
    """Read a table of predictions.

    An image with several rows, as in a cross-validation with several seeds, gets the mean of
    their probabilities. Rows of images that could not be read are skipped.

    Args:
        file: CSV file with ``PREDICTION_COLUMNS`` and a column of probabilities for each class.
        needs_labels: Whether every row must have a label; otherwise a missing label becomes -1.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file has other columns, a label without a column, a row without a required
            label, or invalid probabilities.
    """
    class_names, rows = _read_rows(file)
    row_paths, row_labels, *_ = zip(*rows, strict=True)
    label_numbers = {name: number for number, name in enumerate(class_names)} | {"": -1}
    if unknown := sorted(set(row_labels) - label_numbers.keys()):
        raise ValueError(
            f"{file}: expected a column for each label, got none for {', '.join(unknown)}"
        )
    if needs_labels and "" in row_labels:
        raise ValueError(
            f"{file}: expected a label in each row, got rows without a label. Give the "
            f"predictions.csv of test or cross_validate; predict does not know the labels."
        )
    positions: dict[str, int] = {}
    row_positions = [positions.setdefault(path, len(positions)) for path in row_paths]
    labels = np.full(len(positions), -1)  # -1 only if no row of the path has a label
    np.maximum.at(labels, row_positions, [label_numbers[label] for label in row_labels])
    sums = np.zeros((len(positions), len(class_names)))
    np.add.at(sums, row_positions, _row_probs(rows, file=file))
    probs = sums / np.bincount(row_positions)[:, None]
    return PredictionTable(tuple(class_names), tuple(positions), labels, probs)


def _read_rows(file: str | Path) -> tuple[list[str], list[list[str]]]:
    """Return the class names and the rows of a table, without rows of unreadable images."""
    header, lines = read_csv(Path(file))
    num_columns = len(PREDICTION_COLUMNS)
    is_ours = tuple(header[:num_columns]) == PREDICTION_COLUMNS and len(header) > num_columns + 1
    if not is_ours or not lines:
        raise ValueError(
            f"{file}: expected the columns {', '.join(PREDICTION_COLUMNS)} and at least two "
            f"classes, as written by test, predict or cross_validate, and at least one row, "
            f"got {', '.join(header) or 'an empty file'}"
        )
    for number, line in enumerate(lines, 2):
        if len(line) != len(header):
            raise ValueError(
                f"{file}: expected {len(header)} columns in each line, got {len(line)} in line "
                f"{number}"
            )
    rows = [line for line in lines if not line[num_columns - 1]]
    if not rows:
        raise ValueError(f"{file}: expected predictions, got only images that could not be read")
    return [csv_name(cell, *PREDICTION_COLUMNS) for cell in header[num_columns:]], rows


def _row_probs(rows: list[list[str]], *, file: str | Path) -> NDArray[np.float64]:
    """Return the probabilities of each row ``(rows, K)``."""
    cells = np.array([row[len(PREDICTION_COLUMNS) :] for row in rows])
    try:  # spreadsheets that separate columns by semicolons write decimal commas
        probs = np.strings.replace(cells, ",", ".").astype(np.float64)
    except ValueError as error:
        raise ValueError(f"{file}: expected a probability for every class ({error})") from error
    # Probabilities of seven digits do not sum to exactly 1. Both conditions are false for NaN.
    is_valid = (probs >= 0).all(axis=1) & (np.abs(probs.sum(axis=1) - 1) < 1e-2)
    if not is_valid.all():
        row = probs[~is_valid][0].tolist()
        raise ValueError(f"{file}: expected probabilities that sum to 1, got {row} for an image")
    return probs


def predictions_csv(predictions: PredictionTable, *, threshold: float | None = None) -> str:
    """Return the content of a CSV file with ``PREDICTION_COLUMNS`` and a column for each class.

    Args:
        predictions: Predictions for labelled images.
        threshold: Confidence below which a prediction is rejected; None leaves ``rejected`` empty.
    """
    names = predictions.class_names
    rows = []
    for path, label, probs in zip(
        predictions.paths, predictions.labels, predictions.probs, strict=True
    ):
        rejected = "" if threshold is None else not probs.max() >= threshold
        rows.append(prediction_row(path, probs, names, label=names[label], rejected=rejected))
    return csv_text(header_row(names), rows)


def header_row(class_names: Sequence[str]) -> list[str]:
    """Return all column names; a class named like another column gets an apostrophe in front."""
    return [*PREDICTION_COLUMNS, *(csv_cell(name, *PREDICTION_COLUMNS) for name in class_names)]


def prediction_row(
    path: str,
    probs: Sequence[float] | NDArray[np.float64],
    class_names: Sequence[str],
    *,
    label: str = "",
    rejected: bool | str = "",
) -> list[str]:
    """Return the row of an image.

    Args:
        path: Path of the image.
        probs: Probabilities ``(K,)``.
        class_names: Names of the K classes.
        label: The image's label; empty if it is unknown.
        rejected: Whether the confidence is below the threshold; empty without a threshold.
    """
    predicted = class_names[int(np.argmax(probs))]
    return [path, label, predicted, str(rejected), "", *(f"{prob:.7g}" for prob in probs)]


def error_row(path: str, error: str, class_names: Sequence[str]) -> list[str]:
    """Return the row of an image that could not be read."""
    return [path, "", "", "", error, *[""] * len(class_names)]
