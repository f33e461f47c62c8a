"""Everything a person needs to believe, or doubt, the evaluation of a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from flowers.evaluation.calibration import Rejection, reliability, with_temperature
from flowers.evaluation.figures import (
    confidence_figure,
    confusion_figure,
    history_figure,
    precision_recall_figure,
    reliability_figure,
    roc_figure,
)
from flowers.evaluation.intervals import wilson_interval
from flowers.evaluation.metrics import confusion, scores
from flowers.evaluation.predictions import PredictionTable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure

    from flowers.evaluation.training_curves import Curve

TOP_K = 5


class Example(NamedTuple):
    """An image to show.

    Args:
        number: Its position in the predictions.
        image: JPEG bytes.
        overlay: JPEG bytes with what the network looked at; None if it cannot tell.
        credit: Who took it; empty if unknown.
    """

    number: int
    image: bytes
    overlay: bytes | None
    credit: str


@dataclass(frozen=True)
class Report:
    """What is known of a checkpoint's evaluation.

    Args:
        title: What was evaluated.
        predictions: Plain predictions, as the network gives them.
        temperature: What its logits are divided by; None for a checkpoint without calibration.
        rejection: When it gives no answer, chosen on the validation split; None likewise.
        facts: Tables of names and values, by their titles: data, run, environment.
        curves: Scalars of the run, by their names.
        marks: Epochs to mark in them, counted from 0, by what to call them.
        mistakes: The most confident wrong predictions.
        successes: Some right ones.
        overlay_note: Why there are no overlays, if so.
    """

    title: str
    predictions: PredictionTable
    temperature: float | None = None
    rejection: Rejection | None = None
    facts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    curves: Mapping[str, Curve] = field(default_factory=dict)
    marks: Mapping[str, int] = field(default_factory=dict)
    mistakes: Sequence[Example] = ()
    successes: Sequence[Example] = ()
    overlay_note: str = ""

    @property
    def shown(self) -> PredictionTable:
        """The predictions as ``predict`` gives them: calibrated where the checkpoint is."""
        found = self.predictions
        if self.temperature is None:
            return found
        return PredictionTable(
            found.class_names,
            found.paths,
            found.labels,
            with_temperature(found.probs, self.temperature),
        )


def report_numbers(report: Report) -> dict[str, Any]:
    """Return every number of a report as plain values, as ``report.json`` has them."""
    found = report.predictions
    labels, probs = found.labels, found.probs
    all_scores = scores(found)
    right = int(found.correct.sum())
    numbers: dict[str, Any] = {
        "images": len(labels),
        "right": right,
        "accuracy": right / len(labels),
        "accuracy_interval_95": list(wilson_interval(right, len(labels))),
        "macro_f1": all_scores["macro-F1"],
        "balanced_accuracy": all_scores["balanced accuracy"],
        "log_loss": all_scores["log loss"],
        "ece": reliability(probs, labels).error,
    }
    if len(found.class_names) > TOP_K:
        order = np.argsort(-probs, axis=1, kind="stable")[:, :TOP_K]
        numbers[f"top_{TOP_K}_accuracy"] = float((order == labels[:, None]).any(axis=1).mean())
    if report.temperature is not None:
        numbers |= _calibrated(report, report.temperature)
    counts = confusion(found)
    numbers["classes"] = {
        name: {metric: all_scores[f"{name}/{metric}"] for metric in ("precision", "recall", "F1")}
        | {"support": int(counts[label].sum())}
        for label, name in enumerate(found.class_names)
    }
    numbers["confusion"] = counts.tolist()
    numbers["facts"] = {title: dict(table) for title, table in report.facts.items()}
    return numbers


def _calibrated(report: Report, temperature: float) -> dict[str, Any]:
    found = report.shown
    probs = found.probs
    numbers: dict[str, Any] = {
        "temperature": temperature,
        "ece_calibrated": reliability(probs, found.labels).error,
    }
    numbers["log_loss_calibrated"] = scores(found)["log loss"]
    if report.rejection is not None:
        answered = probs.max(axis=1) >= report.rejection.threshold
        right = found.correct[answered]
        numbers["rejection"] = {
            "threshold": report.rejection.threshold,
            "coverage": float(answered.mean()),
            "accuracy_of_answers": float(right.mean()) if len(right) else None,
            "accuracy_interval_95": list(wilson_interval(int(right.sum()), len(right)))
            if len(right)
            else None,
        }
    return numbers


def report_figures(report: Report) -> dict[str, Figure]:
    """Return the figures of a report, by their titles."""
    found = report.predictions
    figures = {
        "Confusion matrix": confusion_figure(confusion(found), found.class_names),
        "Receiver operating characteristic": roc_figure(found),
        "Precision and recall": precision_recall_figure(found),
        "Reliability": reliability_figure(
            reliability(found.probs, found.labels), title="As trained"
        ),
    }
    if report.temperature is not None:
        scaled = reliability(report.shown.probs, found.labels)
        title = f"Temperature {report.temperature:.2f}"
        figures["Reliability after temperature scaling"] = reliability_figure(scaled, title=title)
    figures["Confidence"] = confidence_figure(report.shown)
    if any(name.startswith(("train/", "val/")) for name in report.curves):
        figures["Training"] = history_figure(report.curves, marks=report.marks)
    return figures
