"""The table and the listing that ``predict`` leaves, written by one process or several."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from flowers.inference import Classification
from flowers.runs import publish

# File names that are no UTF-8 go through as they are.
_TEXT: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape"}


class Part:
    """What one process writes: rows of the table, and a JSON record a line.

    Args:
        folder: Folder of the parts.
        number: Rank of the process.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self.rows, self.records = folder / f"{number}.csv", folder / f"{number}.json"

    def write(self, answers: Iterable[tuple[str, Classification | OSError]], *, class_names: Sequence[str]) -> int:
        """Write answers while they come; return how many are errors.

        Args:
            answers: Paths, and what was found of them.
            class_names: Names of the K classes.
        """
        errors = 0
        with self.rows.open("w", newline="", **_TEXT) as rows, self.records.open("w", **_TEXT) as records:
            writer = csv.writer(rows)
            for path, answer in answers:
                errors += isinstance(answer, OSError)
                row = _row(path, answer)
                columns = _probabilities(answer, class_names)
                writer.writerow([*row.values(), *columns])
                probs = dict(zip(class_names, map(float, columns), strict=True)) if columns[0] else None
                records.write(json.dumps(row | {"probabilities": probs}) + "\n")
        return errors


def join_parts(
    table: Path,
    parts: Sequence[Part],
    *,
    class_names: Sequence[str],
    folder: Path,
) -> list[Path]:
    """Put the parts together, as CSV and as JSON beside it; both are there when they are whole.

    Returns their names, which have a number where a file was made there meanwhile.

    Args:
        table: The CSV file.
        parts: What the processes wrote.
        class_names: Names of the K classes.
        folder: Where both are written first, on the same disk.
    """
    partial = [folder / "table", folder / "listing"]
    with partial[0].open("w", newline="", **_TEXT) as rows, partial[1].open("w", **_TEXT) as records:
        csv.writer(rows).writerow(["path", "predicted", "probability", "rejected", "error", *class_names])
        separator = "[\n"
        for part in parts:
            with part.rows.open(newline="", **_TEXT) as opened:
                shutil.copyfileobj(opened, rows)
            with part.records.open(**_TEXT) as opened:
                for line in opened:
                    records.write(separator + line.removesuffix("\n"))
                    separator = ",\n"
        records.write("\n]\n")
    return publish(dict(zip(partial, (table, table.with_suffix(".json")), strict=True)))


def _row(path: str, answer: Classification | OSError) -> dict[str, Any]:
    if isinstance(answer, OSError):
        return {"path": path, "predicted": None, "probability": None, "rejected": None, "error": str(answer)}
    probability = float(f"{answer.probability:.7g}")
    return {
        "path": path,
        "predicted": answer.label,
        "probability": probability,
        "rejected": answer.rejected,
        "error": "",
    }


def _probabilities(answer: Classification | OSError, class_names: Sequence[str]) -> list[str]:
    if isinstance(answer, OSError):
        return [""] * len(class_names)
    return [f"{answer.probabilities[name]:.7g}" for name in class_names]
