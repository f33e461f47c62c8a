"""Compare several runs: their scores, McNemar's test of each pair, and the options that differ."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from flowers.evaluation.metrics import overall_metrics
from flowers.evaluation.predictions import PredictionTable
from flowers.evaluation.training_curves import Curve

LEVEL = 0.05  # the usual significance level


class RunPair(NamedTuple):
    """McNemar's test of two runs.

    Args:
        first: Name of the first run.
        second: Name of the second run.
        shared: Number of test images that both runs share.
        only_first: Number of shared images that only the first run classifies correctly.
        only_second: Number of shared images that only the second run classifies correctly.
        p_value: Probability of at least this difference between equally good networks.
        p_value_corrected: The p-value, corrected for the number of pairs.
        same_classes: Whether both runs have the same classes.
    """

    first: str
    second: str
    shared: int
    only_first: int
    only_second: int
    p_value: float
    p_value_corrected: float
    same_classes: bool

    @property
    def verdict(self) -> str:
        """The result of the test in words."""
        if not self.shared:
            return "no test image in common"
        if self.p_value_corrected >= LEVEL:
            result = "no significant difference"
        elif self.only_first > self.only_second:
            result = f"{self.first} is better"
        else:
            result = f"{self.second} is better"
        note = "" if self.same_classes else ", but the runs have different classes"
        return f"{result}, p = {self.p_value_corrected:.2g}{note}"


@dataclass(frozen=True)
class Run:
    """The results of a run.

    Args:
        name: Name of the run.
        predictions: Calibrated predictions of the test images; None if the run was not tested.
        curves: Logged scalars by their names.
        seconds: Duration of the training; None if nothing was logged.
        config: Values of its options by their names.
        checkpoint: Name of the tested checkpoint, such as ``best.ckpt``; empty if unknown.
        sha256: Checksum of each image by its path, which tells whether two runs tested the same
            image; empty if unknown.
    """

    name: str
    predictions: PredictionTable | None = None
    curves: Mapping[str, Curve] = field(default_factory=dict)
    seconds: float | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: str = ""
    sha256: Mapping[str, str] = field(default_factory=dict)


class Answer(NamedTuple):
    """The prediction of a run for an image.

    Args:
        run: Name of the run.
        path: Path of the image, relative to the root.
        label: Class name of the image.
        predicted: Predicted class name.
        confidence: Probability of the predicted class.
    """

    run: str
    path: str
    label: str
    predicted: str
    confidence: float

    @property
    def is_correct(self) -> bool:
        """Whether the predicted class is the label."""
        return self.predicted == self.label


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the p-value of McNemar's exact test of two networks on the same images.

    The null hypothesis is that both networks are equally good. Under this hypothesis, if exactly
    one network classifies an image correctly, it is the first network with probability 1/2. The
    test compares two trained networks, not two training recipes
    (https://doi.org/10.1162/089976698300017197).

    Args:
        only_first: Number of images that only the first network classifies correctly.
        only_second: Number of images that only the second network classifies correctly.
    """
    if only_first == only_second:
        return 1.0
    return float(binomtest(only_first, only_first + only_second).pvalue)


def pairs(runs: Sequence[Run]) -> list[RunPair]:
    """Return all pairs of tested runs, with p-values corrected for the number of pairs (Holm)."""
    results = []
    for first, second in combinations(runs, 2):
        if first.predictions is None or second.predictions is None:
            continue
        shared = _shared_answers([first, second])
        outcomes = Counter((one.is_correct, other.is_correct) for one, other in shared)
        p_value = mcnemar(outcomes[True, False], outcomes[False, True])
        pair = RunPair(
            first=first.name,
            second=second.name,
            shared=len(shared),
            only_first=outcomes[True, False],
            only_second=outcomes[False, True],
            p_value=p_value,
            p_value_corrected=p_value,
            same_classes={*first.predictions.class_names} == {*second.predictions.class_names},
        )
        results.append(pair)
    corrected = _holm(np.array([pair.p_value for pair in results])).tolist()
    return [pair._replace(p_value_corrected=p) for pair, p in zip(results, corrected, strict=True)]


def _holm(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return p-values with Holm's correction, https://www.jstor.org/stable/4615733."""
    order = np.argsort(p_values)
    steps = p_values[order] * np.arange(len(p_values), 0, -1)
    corrected = np.empty_like(p_values)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return corrected


def run_numbers(run: Run) -> dict[str, Any]:
    """Return the metrics and the duration of a run as plain values; unknown values are left out."""
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

    Each list has one value per run; None if the run does not have the option.
    """
    configs = [run.config for run in runs if run.config]
    options = {}
    for name in sorted(set().union(*configs)):
        if any(config.get(name) != configs[0].get(name) for config in configs):
            options[name] = [run.config.get(name) for run in runs]
    return options


def disagreements(runs: Sequence[Run]) -> list[list[Answer]]:
    """Return the answers of all tested runs for each shared image whose predictions differ.

    The images with the most confident incorrect predictions come first.
    """
    different = []
    for answers in _shared_answers([run for run in runs if run.predictions is not None]):
        if len({answer.predicted for answer in answers}) > 1:
            different.append(answers)
    return sorted(different, key=_largest_error, reverse=True)


def _shared_answers(runs: Sequence[Run]) -> list[list[Answer]]:
    """Return the answers of all runs for each image that all of them tested with the same label.

    An image is identified by its checksum, or by its path if any run has no checksums.
    """
    has_sha256 = all(run.sha256 for run in runs)
    answers: dict[tuple[str, str], dict[str, Answer]] = defaultdict(dict)
    for run in runs:
        for answer in _answers(run):
            image = run.sha256.get(answer.path, answer.path) if has_sha256 else answer.path
            answers[image, answer.label][run.name] = answer
    return [[*group.values()] for group in answers.values() if len(group) == len(runs)]


def _answers(run: Run) -> Iterator[Answer]:
    assert run.predictions is not None
    names = run.predictions.class_names
    columns = (run.predictions.labels, run.predictions.predicted, run.predictions.confidence)
    for path, label, predicted, confidence in zip(run.predictions.paths, *columns, strict=True):
        yield Answer(run.name, path, names[label], names[predicted], float(confidence))


def _largest_error(answers: Sequence[Answer]) -> float:
    return max([answer.confidence for answer in answers if not answer.is_correct], default=0)
