"""The comparison of runs as texts to read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from flowers.evaluation.comparison import differing_options, pairs, run_numbers
from flowers.evaluation.figures import overlay_figure
from flowers.evaluation.pages import data_uri, figure_svg, markdown_row, render_page

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure

    from flowers.evaluation.comparison import Run

_NOTES = {
    "Test": "The probabilities are those of predict. Accuracies can be compared directly only where the test images "
    "are the same.",
    "Pairs": "McNemar's exact test on the images that are in both runs' tests, under one label; with several pairs "
    "its p-value is corrected after Holm, and below 0.05 one is called better. It compares these trained networks: "
    "whether a recipe is better, several seeds of it tell.",
}


def comparison_json(runs: Sequence[Run]) -> str:
    """Return all numbers of a comparison as JSON."""
    facts = {
        "runs": {run.name: run_numbers(run) for run in runs},
        "pairs": [
            {
                "first": pair.first,
                "second": pair.second,
                "shared": pair.shared,
                "verdict": pair.verdict,
            }
            | (
                {}
                if pair.test is None
                else pair.test._asdict() | {"p_value_corrected": pair.corrected}
            )
            for pair in pairs(runs)
        ],
        "differing_options": differing_options(runs),
    }
    return json.dumps(facts, indent=2, default=str)


def comparison_markdown(runs: Sequence[Run]) -> str:
    """Return a comparison as Markdown tables."""
    lines = ["# Comparison"]
    for title, (header, *rows) in _tables(runs).items():
        lines += ["", f"## {title}", "", markdown_row(header), markdown_row(["---"] * len(header))]
        lines += map(markdown_row, rows)
        lines += ["", _NOTES[title]] if title in _NOTES else []
    return "\n".join(lines) + "\n"


def comparison_html(runs: Sequence[Run], figures: Mapping[str, Figure]) -> str:
    """Return a comparison, with figures by their titles, as one page that needs nothing else."""
    return render_page(
        "comparison.html.j2",
        tables=_tables(runs),
        notes=_NOTES,
        figures={
            title: data_uri(figure_svg(figure), "svg+xml") for title, figure in figures.items()
        },
    )


def comparison_figures(runs: Sequence[Run]) -> dict[str, Figure]:
    """Return the curves of all runs over each other, by what they show."""
    wanted = {
        "validation loss": "val/loss",
        "validation accuracy": "val/acc",
        "training loss": "train/loss",
    }
    return {
        title: overlay_figure(
            {run.name: run.curves[name] for run in runs if name in run.curves}, title=title
        )
        for title, name in wanted.items()
        if any(name in run.curves for run in runs)
    }


def _tables(runs: Sequence[Run]) -> dict[str, list[list[str]]]:
    """Return tables by their titles, each with its header first."""
    numbers = {run.name: run_numbers(run) for run in runs}
    tables = {
        "Test": [
            [
                "run",
                "checkpoint",
                "images",
                "accuracy (95 %, Wilson)",
                "balanced accuracy",
                "macro-F1",
                "log loss",
                "ECE",
            ],
            *([name, *_tested(row)] for name, row in numbers.items()),
        ],
        "Training": [
            ["run", "best validation accuracy", "epochs", "time"],
            *([name, *_trained(row)] for name, row in numbers.items()),
        ],
    }
    found = pairs(runs)
    if found:
        header = [
            "runs",
            "shared images",
            "right in the first alone",
            "in the second alone",
            "verdict",
        ]
        tables["Pairs"] = [header]
        for pair in found:
            counts = (
                ["", ""]
                if pair.test is None
                else [str(pair.test.only_first), str(pair.test.only_second)]
            )
            tables["Pairs"].append(
                [f"{pair.first}, {pair.second}", str(pair.shared), *counts, pair.verdict]
            )
    if options := differing_options(runs):
        header = ["option", *(run.name for run in runs)]
        tables["Options that differ"] = [
            header,
            *([name, *map(str, row)] for name, row in options.items()),
        ]
    return tables


def _tested(row: Mapping[str, Any]) -> list[str]:
    if "accuracy" not in row:
        return ["", "", "not tested: python -m flowers test --ckpt_path FILE", "", "", "", ""]
    low, high = row["accuracy_interval_95"]
    accuracy = f"{row['accuracy']:.1%} ({low:.1%} to {high:.1%})"
    shares = [f"{row[key]:.1%}" for key in ("balanced_accuracy", "macro_f1")]
    return [
        row["checkpoint"],
        str(row["test_images"]),
        accuracy,
        *shares,
        f"{row['log_loss']:.3f}",
        f"{row['ece']:.3f}",
    ]


def _trained(row: Mapping[str, Any]) -> list[str]:
    best = f"{row['best_validation_accuracy']:.1%}" if "best_validation_accuracy" in row else ""
    time = f"{row['training_seconds'] / 60:.1f} min" if "training_seconds" in row else ""
    return [best, str(row.get("epochs", "")), time]
