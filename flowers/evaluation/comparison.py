"""Which of several runs is better, and whether that can be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.stats import binomtest

from flowers.evaluation.calibration import reliability
from flowers.evaluation.intervals import wilson_interval
from flowers.evaluation.metrics import scores

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from flowers.evaluation.predictions import PredictionTable
    from flowers.evaluation.training_curves import Curve

LEVEL = 0.05  # the convention: one in twenty pairs of equals is called different


class McNemar(NamedTuple):
    """McNemar's test of two networks on the same images.

    Args:
        only_first: Images that only the first has right.
        only_second: Images that only the second has right.
        p_value: How often networks that are equally good would differ at least that much.
    """

    only_first: int
    only_second: int
    p_value: float


class Pair(NamedTuple):
    """Two runs beside each other.

    Args:
        first: Name of a run.
        second: Name of another.
        shared: Test images of both.
        test: McNemar's test on them; None without shared images.
        corrected: Its p-value, corrected for the number of pairs.
        same_classes: Whether both tell apart the same classes.
    """

    first: str
    second: str
    shared: int
    test: McNemar | None
    corrected: float
    same_classes: bool

    @property
    def verdict(self) -> str:
        """What the test says, as a sentence."""
        if self.test is None:
            return "no test image in common"
        note = "" if self.same_classes else ", but they tell apart other classes"
        if self.corrected >= LEVEL:
            return f"no difference can be told, p = {self.corrected:.2g}{note}"
        better = self.first if self.test.only_first > self.test.only_second else self.second
        return f"{better} is better, p = {self.corrected:.2g}{note}"


@dataclass(frozen=True)
class Run:
    """What is known of a run.

    Args:
        name: What to call it.
        predictions: Those of its test, as ``predict`` gives them; None for a run that was not
            tested.
        curves: What it logged, by name.
        seconds: How long it trained; None if it logged nothing.
        config: Its options and their values, by name.
        checkpoint: What was tested, as ``best.ckpt``; empty if unknown.
        sha256: Checksums of the images by their paths, by which other runs' images are known again;
            empty if unknown.
    """

    name: str
    predictions: PredictionTable | None = None
    curves: Mapping[str, Curve] = field(default_factory=dict)
    seconds: float | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: str = ""
    sha256: Mapping[str, str] = field(default_factory=dict)


def mcnemar(first_right: NDArray[np.bool_], second_right: NDArray[np.bool_]) -> McNemar:
    """Return McNemar's exact test: of the images that one network alone has right, is it half each?

    It tells two networks apart, not two recipes: another seed trains another network
    (https://doi.org/10.1162/089976698300017197).

    Args:
        first_right: Whether the first network is right ``(N,)``.
        second_right: Whether the second is, on the same images ``(N,)``.
    """
    only_first, only_second = (
        int((first_right & ~second_right).sum()),
        int((second_right & ~first_right).sum()),
    )
    differing = only_first + only_second
    p_value = float(binomtest(only_first, differing).pvalue) if differing else 1.0
    return McNemar(only_first, only_second, p_value)


def pairs(runs: Sequence[Run]) -> list[Pair]:
    """Return all pairs of tested runs, their p-values corrected for the number of tests after Holm (1979)."""
    found = [
        _pair(a, b)
        for a, b in combinations([run for run in runs if run.predictions is not None], 2)
    ]
    corrected = _holm(np.array([1.0 if pair.test is None else pair.test.p_value for pair in found]))
    return [
        pair._replace(corrected=p_value)
        for pair, p_value in zip(found, corrected.tolist(), strict=True)
    ]


def _pair(first: Run, second: Run) -> Pair:
    assert first.predictions is not None
    assert second.predictions is not None
    by_content = bool(first.sha256 and second.sha256)
    ours, theirs = (_outcomes(run, by_content=by_content) for run in (first, second))
    shared = [image for image in ours if image in theirs]
    right = [
        np.array([outcomes[image] for image in shared], dtype=bool) for outcomes in (ours, theirs)
    ]
    same_classes = set(first.predictions.class_names) == set(second.predictions.class_names)
    return Pair(
        first.name, second.name, len(shared), mcnemar(*right) if shared else None, 1.0, same_classes
    )


def _outcomes(run: Run, *, by_content: bool) -> dict[tuple[str, str], bool]:
    """Return whether each image, known by its checksum or else its path, was predicted as its label."""
    found = run.predictions
    assert found is not None
    images = [run.sha256.get(path, path) for path in found.paths] if by_content else found.paths
    labels = [found.class_names[label] for label in found.labels]
    return dict(zip(zip(images, labels, strict=True), found.correct.tolist(), strict=True))


def _holm(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return p-values corrected for their number (https://www.jstor.org/stable/4615733)."""
    order = np.argsort(p_values)
    steps = p_values[order] * np.arange(len(p_values), 0, -1)
    corrected = np.empty_like(p_values)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return corrected


def run_numbers(run: Run) -> dict[str, Any]:
    """Return what is compared of a run, as plain values; what is unknown is left out."""
    numbers: dict[str, Any] = {}
    if (found := run.predictions) is not None:
        values, right = scores(found), int(found.correct.sum())
        numbers |= {
            "checkpoint": run.checkpoint,
            "test_images": len(found.paths),
            "accuracy": values["accuracy"],
            "accuracy_interval_95": list(wilson_interval(right, len(found.paths))),
            "balanced_accuracy": values["balanced accuracy"],
            "macro_f1": values["macro-F1"],
            "log_loss": values["log loss"],
            "ece": reliability(found.probs, found.labels).error,
        }
    if (validated := run.curves.get("val/acc")) is not None:
        numbers["best_validation_accuracy"] = float(np.nanmax(validated.values))
    if run.curves:
        numbers["epochs"] = round(max(float(curve.epochs[-1]) for curve in run.curves.values()))
    if run.seconds is not None:
        numbers["training_seconds"] = run.seconds
    return numbers


def differing_options(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Return the options whose values differ between the runs that have a configuration, None where one has none."""
    names = sorted({name for run in runs for name in run.config})
    values = {name: [run.config.get(name) for run in runs] for name in names}
    known = [number for number, run in enumerate(runs) if run.config]
    return {
        name: row for name, row in values.items() if any(row[i] != row[known[0]] for i in known)
    }
