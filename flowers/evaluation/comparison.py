"""Compare several runs: their scores, McNemar's test of each pair, and the options that differ."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.stats import binomtest

from flowers.evaluation.metrics import overall_metrics

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from flowers.evaluation.predictions import PredictionTable
    from flowers.evaluation.training_curves import Curve

LEVEL = 0.05  # the usual significance level


class McNemar(NamedTuple):
    """McNemar's test of two networks on the same images.

    Args:
        only_first: Number of images that only the first classifies correctly.
        only_second: Number of images that only the second classifies correctly.
        p_value: Probability of at least that difference if both networks are equally good.
    """

    only_first: int
    only_second: int
    p_value: float


class Pair(NamedTuple):
    """The comparison of two runs.

    Args:
        first: Name of a run.
        second: Name of another.
        shared: Number of test images of both.
        test: McNemar's test on these images.
        corrected: The test's p-value, corrected for the number of pairs.
        same_classes: Whether both runs have the same classes.
    """

    first: str
    second: str
    shared: int
    test: McNemar
    corrected: float
    same_classes: bool

    @property
    def verdict(self) -> str:
        """The result of the test in words."""
        if not self.shared:
            return "no test image in common"
        if self.corrected >= LEVEL:
            result = "no significant difference"
        elif self.test.only_first > self.test.only_second:
            result = f"{self.first} is better"
        else:
            result = f"{self.second} is better"
        note = "" if self.same_classes else ", but the runs have different classes"
        return f"{result}, p = {self.corrected:.2g}{note}"


@dataclass(frozen=True)
class Run:
    """The results of a run.

    Args:
        name: Name to show.
        predictions: Predictions of its test, calibrated; None for a run that was not tested.
        curves: Logged scalars by their names.
        seconds: Duration of the training; None if nothing was logged.
        config: Values of its options by their names.
        checkpoint: Name of the tested checkpoint, such as ``best.ckpt``; empty if unknown.
        sha256: Checksums of the images by their paths, which identify an image in several runs;
            empty if unknown.
    """

    name: str
    predictions: PredictionTable | None = None
    curves: Mapping[str, Curve] = field(default_factory=dict)
    seconds: float | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: str = ""
    sha256: Mapping[str, str] = field(default_factory=dict)


def mcnemar(first_correct: NDArray[np.bool_], second_correct: NDArray[np.bool_]) -> McNemar:
    """Return McNemar's exact test of two networks on the same images.

    Of the images that exactly one network classifies correctly, equally good networks share half
    each. The test compares two trained networks, not two training recipes: another seed trains
    another network (https://doi.org/10.1162/089976698300017197).

    Args:
        first_correct: Whether the first network is correct ``(N,)``.
        second_correct: Whether the second network is correct ``(N,)``.
    """
    only_first = int((first_correct & ~second_correct).sum())
    only_second = int((second_correct & ~first_correct).sum())
    p_value = 1.0
    if only_first or only_second:
        p_value = float(binomtest(only_first, only_first + only_second).pvalue)
    return McNemar(only_first, only_second, p_value)


def pairs(runs: Sequence[Run]) -> list[Pair]:
    """Return all pairs of tested runs, with p-values corrected for the number of pairs (Holm)."""
    tested = [run for run in runs if run.predictions is not None]
    uncorrected = [_pair(first, second) for first, second in combinations(tested, 2)]
    p_values = _holm(np.array([pair.test.p_value for pair in uncorrected]))
    return [
        pair._replace(corrected=p_value)
        for pair, p_value in zip(uncorrected, p_values.tolist(), strict=True)
    ]


def _pair(first: Run, second: Run) -> Pair:
    """Return the comparison of two tested runs, with its uncorrected p-value."""
    assert first.predictions is not None
    assert second.predictions is not None
    by_content = bool(first.sha256 and second.sha256)
    first_correct = _correct_by_image(first.predictions, first.sha256 if by_content else {})
    second_correct = _correct_by_image(second.predictions, second.sha256 if by_content else {})
    shared = [image for image in first_correct if image in second_correct]
    test = mcnemar(
        np.array([first_correct[image] for image in shared], dtype=bool),
        np.array([second_correct[image] for image in shared], dtype=bool),
    )
    same_classes = set(first.predictions.class_names) == set(second.predictions.class_names)
    return Pair(first.name, second.name, len(shared), test, test.p_value, same_classes)


def _correct_by_image(
    predictions: PredictionTable, sha256: Mapping[str, str]
) -> dict[tuple[str, str], bool]:
    """Return whether each image is classified correctly, by its checksum or path, and label."""
    outcomes = {}
    for path, label, is_correct in zip(
        predictions.paths, predictions.labels, predictions.correct.tolist(), strict=True
    ):
        outcomes[sha256.get(path, path), predictions.class_names[label]] = is_correct
    return outcomes


def _holm(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return p-values corrected for their number, https://www.jstor.org/stable/4615733."""
    order = np.argsort(p_values)
    steps = p_values[order] * np.arange(len(p_values), 0, -1)
    corrected = np.empty_like(p_values)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return corrected


def run_numbers(run: Run) -> dict[str, Any]:
    """Return the numbers of a run as plain values; unknown ones are left out."""
    numbers: dict[str, Any] = {}
    if run.predictions is not None:
        numbers = {
            "checkpoint": run.checkpoint,
            "test_images": len(run.predictions.paths),
            **overall_metrics(run.predictions),
        }
    if "val/acc" in run.curves:
        numbers["best_validation_accuracy"] = float(np.nanmax(run.curves["val/acc"].values))
    if run.curves:
        numbers["epochs"] = round(max(float(curve.epochs[-1]) for curve in run.curves.values()))
    if run.seconds is not None:
        numbers["training_seconds"] = run.seconds
    return numbers


def differing_options(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Return the options whose values differ between the runs that have a configuration.

    The list has one value per run, None if the run does not have the option.
    """
    configs = [run.config for run in runs if run.config]
    options = {}
    for name in sorted(set().union(*configs)):
        values = [config.get(name) for config in configs]
        if any(value != values[0] for value in values):
            options[name] = [run.config.get(name) for run in runs]
    return options
