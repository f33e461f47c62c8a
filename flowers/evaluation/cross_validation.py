"""Scores of a cross-validation over its folds and seeds."""

import json
from collections.abc import Mapping
from itertools import chain
from statistics import mean, stdev
from typing import NamedTuple

import numpy as np

from flowers.evaluation.metrics import confusion, fold_interval, scores
from flowers.evaluation.predictions import PredictionTable, predictions_csv
from flowers.evaluation.reports.page import Table, table_markdown

# The predictions of each test fold, by (seed, fold).
FoldPredictions = dict[tuple[int, int], PredictionTable]


class Summary(NamedTuple):
    """Statistics of a score over all runs of a cross-validation.

    Args:
        mean: Mean over folds and seeds.
        sd: Standard deviation over all runs.
        low: Lower end of the mean's 95 % confidence interval (see ``fold_interval``).
        high: Upper end of the interval.
    """

    mean: float
    sd: float
    low: float
    high: float


def summarize(runs: FoldPredictions) -> dict[str, Summary]:
    """Return mean, standard deviation and confidence interval of every score.

    Raises:
        ValueError: There are fewer than two folds.
    """
    folds = np.array(list(runs))[:, 1]  # the keys are (seed, fold)
    run_scores = list(map(scores, runs.values()))
    summary = {}
    for name in run_scores[0]:
        values = np.array([one[name] for one in run_scores])
        low, high = fold_interval([mean(values[folds == fold]) for fold in np.unique(folds)])
        low = max(0.0, low)
        if name != "log loss":  # all other scores are fractions
            high = min(1.0, high)
        summary[name] = Summary(mean(values), stdev(values), low, high)
    return summary


def pool(runs: FoldPredictions) -> PredictionTable:
    """Return the predictions of all runs as one table, which has each image once per seed.

    Raises:
        ValueError: An image is in several test folds of a seed, or the images of the seeds differ.
    """
    paths_by_seed: dict[int, list[str]] = {}
    for (seed, _), predictions in runs.items():
        paths_by_seed.setdefault(seed, []).extend(predictions.paths)
    expected = set(next(iter(paths_by_seed.values())))
    for seed, seed_paths in paths_by_seed.items():
        if len(seed_paths) != len(expected) or set(seed_paths) != expected:
            raise ValueError(
                f"seed {seed}: expected each image in exactly one test fold, and the same images "
                f"for every seed, got {len(seed_paths):,} predictions of {len(set(seed_paths)):,} "
                f"images; the first seed has {len(expected):,}. The data changed between the runs; "
                "start again in a new folder."
            )
    tables = [*runs.values()]
    return PredictionTable(
        tables[0].class_names,
        tuple(chain.from_iterable(table.paths for table in tables)),
        np.concatenate([table.labels for table in tables]),
        np.concatenate([table.probs for table in tables]),
    )


def summary_files(runs: FoldPredictions) -> dict[str, str]:
    """Return the files with the scores and the pooled predictions, by their names.

    Raises:
        ValueError: An image is in several test folds of a seed, the images of the seeds differ, or
            there are fewer than two folds.
    """
    pooled = pool(runs)
    summary = summarize(runs)
    numbers = {
        "scores": {name: score._asdict() for name, score in summary.items()},
        "confusion": confusion(pooled).tolist(),
    }
    return {
        "summary.md": _markdown(runs, summary, pooled),
        "summary.json": json.dumps(numbers, indent=2),
        "predictions.csv": predictions_csv(pooled),
    }


def _markdown(
    runs: FoldPredictions, summary: Mapping[str, Summary], pooled: PredictionTable
) -> str:
    seeds, folds = map(set, zip(*runs, strict=True))  # the keys are (seed, fold)
    seed_count = "1 seed" if len(seeds) == 1 else f"{len(seeds)} seeds"
    counts = confusion(pooled)
    score_rows = []
    for name, score in summary.items():
        interval = f"{score.low:.4f} to {score.high:.4f}"
        score_rows.append([name, f"{score.mean:.4f}", f"{score.sd:.4f}", interval])
    confusion_rows = list(zip(pooled.class_names, *counts.T.tolist(), strict=True))
    score_table = Table(score_rows, ["score", "mean", "standard deviation", "95 % interval"])
    confusion_table = Table(confusion_rows, ["row: label, column: predicted", *pooled.class_names])
    return (
        f"{len(folds)} folds, {seed_count}, {counts.sum():,} out-of-fold predictions.\n\n"
        f"{table_markdown(score_table)}\n\n"
        f"{table_markdown(confusion_table)}\n"
    )
