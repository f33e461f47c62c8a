"""Everything a person needs to believe, or doubt, the evaluation of a checkpoint."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from flowers.evaluation.calibration import Rejection, reliability, with_temperature
from flowers.evaluation.intervals import wilson_interval
from flowers.evaluation.pages import data_uri, figure_svg, render_page
from flowers.evaluation.plots import (
    confidence_figure,
    confusion_figure,
    history_figure,
    precision_recall_figure,
    reliability_figure,
    roc_figure,
)
from flowers.evaluation.predictions import Predictions
from flowers.evaluation.scores import confusion, scores

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure

    from flowers.evaluation.history import Curve

_TOP_K = 5
_MOST_CONFUSED = 10


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
        best_epoch: Epoch of the checkpoint, counted from 0.
        mistakes: The most confident wrong predictions.
        successes: Some right ones.
        overlay_note: Why there are no overlays, if so.
    """

    title: str
    predictions: Predictions
    temperature: float | None = None
    rejection: Rejection | None = None
    facts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    curves: Mapping[str, Curve] = field(default_factory=dict)
    best_epoch: int | None = None
    mistakes: Sequence[Example] = ()
    successes: Sequence[Example] = ()
    overlay_note: str = ""

    @property
    def shown(self) -> Predictions:
        """The predictions as ``predict`` gives them: calibrated where the checkpoint is."""
        found = self.predictions
        if self.temperature is None:
            return found
        return Predictions(
            found.class_names, found.paths, found.labels, with_temperature(found.probs, self.temperature)
        )


def report_numbers(report: Report) -> dict[str, Any]:
    """Return every number of a report as plain values, as ``report.json`` has them."""
    found = report.predictions
    labels, probs = found.labels, found.probs
    all_scores = scores(found)
    right = int((probs.argmax(axis=1) == labels).sum())
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
    if len(found.class_names) > _TOP_K:
        order = np.argsort(-probs, axis=1, kind="stable")[:, :_TOP_K]
        numbers[f"top_{_TOP_K}_accuracy"] = float((order == labels[:, None]).any(axis=1).mean())
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
    found = report.predictions
    probs = with_temperature(found.probs, temperature)
    numbers: dict[str, Any] = {"temperature": temperature, "ece_calibrated": reliability(probs, found.labels).error}
    rows = np.arange(len(found.labels))
    numbers["log_loss_calibrated"] = float(-np.log(np.maximum(probs[rows, found.labels], np.finfo(float).tiny)).mean())
    if report.rejection is not None:
        answered = probs.max(axis=1) >= report.rejection.threshold
        right = (probs.argmax(axis=1) == found.labels)[answered]
        numbers["rejection"] = {
            "threshold": report.rejection.threshold,
            "coverage": float(answered.mean()),
            "accuracy_of_answers": float(right.mean()) if len(right) else None,
            "accuracy_interval_95": list(wilson_interval(int(right.sum()), len(right))) if len(right) else None,
        }
    return numbers


def report_figures(report: Report) -> dict[str, Figure]:
    """Return the figures of a report, by their titles."""
    found = report.predictions
    calibration = {"as trained": reliability(found.probs, found.labels)}
    if report.temperature is not None:
        scaled = with_temperature(found.probs, report.temperature)
        calibration[f"temperature {report.temperature:.2f}"] = reliability(scaled, found.labels)
    figures = {
        "Confusion matrix": confusion_figure(confusion(found), found.class_names),
        "Receiver operating characteristic": roc_figure(found),
        "Precision and recall": precision_recall_figure(found),
        "Reliability": reliability_figure(calibration),
        "Confidence, as predict gives it": confidence_figure(report.shown),
    }
    if any(name.startswith(("train/", "val/")) for name in report.curves):
        figures["Training"] = history_figure(report.curves, best_epoch=report.best_epoch)
    return figures


def report_json(report: Report) -> str:
    """Return a report's numbers as JSON."""
    return json.dumps(report_numbers(report), indent=2)


def report_markdown(report: Report) -> str:
    """Return a report's numbers as Markdown tables."""
    numbers = report_numbers(report)
    lines = [f"# {report.title}", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in _headline(numbers)]
    lines += ["", "| class | precision | recall | F1 | images |", "|---|---|---|---|---|"]
    lines += [
        f"| {name} | {row['precision']:.3f} | {row['recall']:.3f} | {row['F1']:.3f} | {row['support']} |"
        for name, row in numbers["classes"].items()
    ]
    for title, table in report.facts.items():
        rows = [f"| {name} | {text} |" for name, text in table.items()]
        lone = ["```", *table.values(), "```"]  # a text of many lines
        lines += ["", f"## {title}", "", *(lone if len(table) == 1 else ["| | |", "|---|---|", *rows])]
    return "\n".join(lines) + "\n"


def report_html(report: Report) -> str:
    """Return a report as one page that needs nothing else."""
    numbers = report_numbers(report)
    return render_page(
        "report.html.j2",
        title=report.title,
        headline=_headline(numbers),
        classes=numbers["classes"],
        confused=_most_confused(report.predictions),
        figures={title: data_uri(figure_svg(figure), "svg+xml") for title, figure in report_figures(report).items()},
        galleries={
            "The worst mistakes": [_card(report, example) for example in report.mistakes],
            "Right": [_card(report, example) for example in report.successes],
        },
        overlay_note=report.overlay_note,
        facts=report.facts,
    )


def _headline(numbers: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the names and values at the top of a report."""
    low, high = numbers["accuracy_interval_95"]
    accuracy = f"{numbers['accuracy']:.1%} ({numbers['right']} of {numbers['images']})"
    rows = [("accuracy", accuracy), ("its 95 % interval (Wilson)", f"{low:.1%} to {high:.1%}")]
    names = {
        "balanced_accuracy": "balanced accuracy",
        "macro_f1": "macro-F1",
        f"top_{_TOP_K}_accuracy": f"top-{_TOP_K}",
    }
    rows += [(name, f"{numbers[key]:.1%}") for key, name in names.items() if key in numbers]
    after = "; after temperature scaling "
    for key, name in (("log_loss", "log loss"), ("ece", "expected calibration error")):
        scaled = f"{after}{numbers[f'{key}_calibrated']:.3f}" if f"{key}_calibrated" in numbers else ""
        rows.append((name, f"{numbers[key]:.3f}{scaled}"))
    if rejection := numbers.get("rejection"):
        rows.append(("answered if at least so sure", f"{min(rejection['threshold'], 1):.1%}"))
        share = f"{rejection['coverage']:.1%} answered"
        if rejection["accuracy_of_answers"] is not None:
            low, high = rejection["accuracy_interval_95"]
            share += f", {rejection['accuracy_of_answers']:.1%} of these right ({low:.1%} to {high:.1%})"
        rows.append(("then", share))
    return rows


def _most_confused(predictions: Predictions) -> list[tuple[str, str, int]]:
    """Return label, prediction and count of the confusions that happen most."""
    counts, names = confusion(predictions), predictions.class_names
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:_MOST_CONFUSED]
    pairs = [np.unravel_index(position, counts.shape) for position in order]
    return [(names[row], names[column], int(counts[row, column])) for row, column in pairs if counts[row, column]]


def _card(report: Report, example: Example) -> dict[str, Any]:
    found, number = report.shown, example.number
    best = np.argsort(-found.probs[number], kind="stable")[:3]
    return {
        "path": found.paths[number],
        "label": found.class_names[found.labels[number]],
        "probs": [(found.class_names[k], float(found.probs[number, k])) for k in best],
        "image": data_uri(example.image, "jpeg"),
        "overlay": data_uri(example.overlay, "jpeg") if example.overlay is not None else "",
        "credit": example.credit,
    }
