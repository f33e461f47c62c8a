"""What a cross-validation says, over folds and seeds."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from statistics import mean, stdev
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from flowers.evaluation.intervals import fold_interval
from flowers.evaluation.metrics import confusion, scores
from flowers.evaluation.predictions import PredictionTable

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The predictions of each run for its test fold, by (seed, fold).
Runs = Mapping[tuple[int, int], PredictionTable]


class Summary(NamedTuple):
    """A score over all runs of a cross-validation.

    Args:
        mean: Mean over folds and seeds.
        sd: Standard deviation over all runs.
        low: Lower end of the 95 % interval of the mean, from the folds.
        high: Its upper end.
    """

    mean: float
    sd: float
    low: float
    high: float


def summarize(runs: Runs) -> dict[str, Summary]:
    """Return mean, standard deviation and interval of every score.

    Raises:
        ValueError: There are fewer than two folds.
    """
    by_run = {key: scores(predictions) for key, predictions in runs.items()}
    folds = sorted({fold for _, fold in runs})
    summary = {}
    for name in next(iter(by_run.values())):
        values = [score[name] for score in by_run.values()]
        by_fold = [mean(by_run[key][name] for key in by_run if key[1] == fold) for fold in folds]
        low, high = fold_interval(by_fold)
        largest = math.inf if name == "log loss" else 1.0  # all others are shares
        summary[name] = Summary(mean(values), stdev(values), max(0.0, low), min(largest, high))
    return summary


def pool(runs: Runs) -> PredictionTable:
    """Return the predictions of all runs as one; with several seeds an image is in it several times.

    Raises:
        ValueError: An image is in two test folds of one seed, or not in those of every seed.
    """
    tested: dict[int, list[str]] = {}
    for (seed, _), predictions in runs.items():
        tested.setdefault(seed, []).extend(predictions.paths)
    first = set(next(iter(tested.values())))
    for seed, paths in tested.items():
        if len(paths) != len(first) or set(paths) != first:
            raise ValueError(
                f"seed {seed}: expected each image in exactly one test fold, the same images for every seed, got "
                f"{len(paths):,} predictions of {len(set(paths)):,} images, {len(first):,} for the first seed. The "
                f"data changed in between; start again with another --out."
            )
    every = list(runs.values())
    return PredictionTable(
        every[0].class_names,
        tuple(path for predictions in every for path in predictions.paths),
        np.concatenate([predictions.labels for predictions in every]),
        np.concatenate([predictions.probs for predictions in every]),
    )


def summary_json(runs: Runs) -> str:
    """Return the summary and the pooled confusion matrix as JSON."""
    found = {name: score._asdict() for name, score in summarize(runs).items()}
    return json.dumps({"scores": found, "confusion": pooled_confusion(runs).tolist()}, indent=2)


def pooled_confusion(runs: Runs) -> NDArray[np.int64]:
    """Return the confusion matrix ``(K, K)`` of all out-of-fold predictions; every image counts once per seed."""
    return confusion(pool(runs))


def summary_markdown(runs: Runs) -> str:
    """Return the summary and the pooled confusion matrix as Markdown tables."""
    seeds, folds = ({key[side] for key in runs} for side in (0, 1))
    names = next(iter(runs.values())).class_names
    total, plural = sum(len(run.paths) for run in runs.values()), "s" if len(seeds) > 1 else ""
    lines = [
        f"{len(folds)} folds, {len(seeds)} seed{plural}, {total:,} out-of-fold predictions.",
        "",
        "| score | mean | standard deviation | 95 % interval |",
        "|---|---|---|---|",
        *(
            f"| {_cell(name)} | {score.mean:.4f} | {score.sd:.4f} | {score.low:.4f} to {score.high:.4f} |"
            for name, score in summarize(runs).items()
        ),
        "",
        "| label, predicted as | " + " | ".join(_cell(name) for name in names) + " |",
        "|---" * (len(names) + 1) + "|",
        *(
            f"| {_cell(name)} | " + " | ".join(str(count) for count in row) + " |"
            for name, row in zip(names, pooled_confusion(runs), strict=True)
        ),
    ]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Return a text as it may stand in a Markdown table."""
    return text.replace("|", "\\|")
