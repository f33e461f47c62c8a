"""The report as texts to read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from flowers.evaluation.metrics import confusion
from flowers.evaluation.pages import data_uri, figure_svg, markdown_row, render_page
from flowers.evaluation.report import TOP_K, report_numbers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.figure import Figure

    from flowers.evaluation.predictions import PredictionTable
    from flowers.evaluation.report import Example, Report

_MOST_CONFUSED = 10
_LARGE = 8  # inches; a wider figure, as the confusion matrix of a hundred classes, needs the page for itself


def report_json(report: Report) -> str:
    """Return a report's numbers as JSON."""
    return json.dumps(report_numbers(report), indent=2)


def report_markdown(report: Report) -> str:
    """Return a report's numbers as Markdown tables."""
    numbers = report_numbers(report)
    lines = [f"# {report.title}", "", "| | |", "|---|---|", *map(markdown_row, _headline(numbers))]
    lines += ["", "| class | precision | recall | F1 | images |", "|---|---|---|---|---|"]
    for name, row in numbers["classes"].items():
        lines.append(
            markdown_row(
                [
                    name,
                    *(f"{row[key]:.3f}" for key in ("precision", "recall", "F1")),
                    row["support"],
                ]
            )
        )
    for title, table in report.facts.items():
        rows = map(markdown_row, table.items())
        lone = ["```", *table.values(), "```"]  # a text of many lines
        lines += [
            "",
            f"## {title}",
            "",
            *(lone if len(table) == 1 else ["| | |", "|---|---|", *rows]),
        ]
    return "\n".join(lines) + "\n"


def report_html(report: Report, figures: Mapping[str, Figure]) -> str:
    """Return a report, with figures by their titles, as one page that needs nothing else."""
    numbers = report_numbers(report)
    return render_page(
        "report.html.j2",
        title=report.title,
        headline=_headline(numbers),
        classes=numbers["classes"],
        confused=_most_confused(report.predictions),
        figures={
            title: (data_uri(figure_svg(figure), "svg+xml"), figure.get_figwidth() > _LARGE)
            for title, figure in figures.items()
        },
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
        f"top_{TOP_K}_accuracy": f"top-{TOP_K}",
    }
    rows += [(name, f"{numbers[key]:.1%}") for key, name in names.items() if key in numbers]
    after = "; after temperature scaling "
    for key, name in (("log_loss", "log loss"), ("ece", "expected calibration error")):
        scaled = (
            f"{after}{numbers[f'{key}_calibrated']:.3f}" if f"{key}_calibrated" in numbers else ""
        )
        rows.append((name, f"{numbers[key]:.3f}{scaled}"))
    if rejection := numbers.get("rejection"):
        rows.append(("answered if at least so sure", f"{min(rejection['threshold'], 1):.1%}"))
        share = f"{rejection['coverage']:.1%} answered"
        if rejection["accuracy_of_answers"] is not None:
            low, high = rejection["accuracy_interval_95"]
            share += (
                f", {rejection['accuracy_of_answers']:.1%} of these right ({low:.1%} to {high:.1%})"
            )
        rows.append(("then", share))
    return rows


def _most_confused(predictions: PredictionTable) -> list[tuple[str, str, int]]:
    """Return label, prediction and count of the confusions that happen most."""
    counts, names = confusion(predictions), predictions.class_names
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:_MOST_CONFUSED]
    pairs = [np.unravel_index(position, counts.shape) for position in order]
    return [
        (names[row], names[column], int(counts[row, column]))
        for row, column in pairs
        if counts[row, column]
    ]


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
