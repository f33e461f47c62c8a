"""The comparison of runs as JSON, Markdown and HTML."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from flowers.evaluation.comparison import (
    LEVEL,
    Answer,
    Run,
    differing_options,
    disagreements,
    pairs,
    run_numbers,
)
from flowers.evaluation.figures import confusion_figure, figure_bytes, overlay_figure
from flowers.evaluation.metrics import confusion
from flowers.evaluation.reports.page import Bar, Card, Picture, Section, Table, page_files

_CURVES = {
    "validation loss": "val/loss",
    "validation accuracy": "val/acc",
    "training loss": "train/loss",
}
_TEST_HEADER = [
    "run",
    "checkpoint",
    "images",
    "accuracy (95 % interval)",
    "balanced accuracy",
    "macro-F1",
    "log loss",
    "ECE",
]
_TEST_NOTE = (
    "Log loss and expected calibration error (ECE) are computed from the probabilities that "
    "`predict` gives. Compare accuracies directly only between runs with the same test images."
)
_MAX_CARDS = 60
_TRAINING_HEADER = ["run", "best validation accuracy", "epochs", "time"]
_PAIR_HEADER = [
    "runs",
    "result",
    "shared images",
    "correct only in the first",
    "correct only in the second",
]
_PAIR_NOTE = (
    "McNemar's exact test compares two runs on the test images that have the same label in both. "
    "With several pairs, p-values are corrected with Holm's method; a run is called better if "
    f"p < {LEVEL}. The test compares these trained networks; to compare training recipes, train "
    "each recipe with several seeds."
)


def comparison_files(
    runs: Sequence[Run], picture: Callable[[str], Picture]
) -> dict[str, str | bytes]:
    """Return the files of a comparison, by their names.

    Args:
        runs: The runs.
        picture: Returns the image of a path in the predictions.
    """
    curves = _curve_figures(runs)
    sections = _tables(runs)
    if curves:
        sections.append(Section("Curves", figures=curves))
    sections += _galleries(runs, picture)
    files = page_files("compare", "Comparison of runs", sections, _numbers(runs))
    for title, figure in curves.items():
        files[f"{title.replace(' ', '_')}.png"] = figure_bytes(figure)
    return files


def _numbers(runs: Sequence[Run]) -> dict[str, Any]:
    rows = []
    for pair in pairs(runs):
        names = ["first", "second", "shared", "verdict"]
        if pair.shared:
            names += ["only_first", "only_second", "p_value", "p_value_corrected"]
        rows.append({name: getattr(pair, name) for name in names})
    return {
        "runs": {run.name: run_numbers(run) for run in runs},
        "pairs": rows,
        "differing_options": differing_options(runs),
    }


def _curve_figures(runs: Sequence[Run]) -> dict[str, Figure]:
    figures = {}
    for title, name in _CURVES.items():
        curves = {run.name: run.curves[name] for run in runs if name in run.curves}
        if curves:
            figures[title] = overlay_figure(curves, title=title)
    return figures


def _galleries(runs: Sequence[Run], picture: Callable[[str], Picture]) -> list[Section]:
    sections = []
    matrices = {}
    for run in runs:
        if run.predictions is not None:
            counts = confusion(run.predictions)
            matrices[run.name] = confusion_figure(counts, run.predictions.class_names)
    if matrices:
        sections.append(Section("Confusion matrices", figures=matrices))
    if different := disagreements(runs):
        title = f"Images with different predictions ({len(different):,})"
        note = "The most confident incorrect predictions come first."
        if len(different) > _MAX_CARDS:
            note += f" The first {_MAX_CARDS} are shown."
        cards = [_card(answers, picture) for answers in different[:_MAX_CARDS]]
        sections.append(Section(title, note=note, cards=cards))
    return sections


def _card(answers: Sequence[Answer], picture: Callable[[str], Picture]) -> Card:
    bars = []
    for answer in answers:
        label = f"{answer.run}: {answer.predicted}"
        bars.append(Bar(label, answer.confidence, f"{answer.confidence:.1%}"))
    return Card(f"label {answers[0].label}", [picture(answers[0].path)], bars)


def _tables(runs: Sequence[Run]) -> list[Section]:
    tested = []
    trained = []
    for run in runs:
        numbers = run_numbers(run)
        tested.append(_test_row(run.name, numbers))
        trained.append(_training_row(run.name, numbers))
    sections = [
        Section("Test", note=_TEST_NOTE, table=Table(tested, _TEST_HEADER)),
        Section("Training", table=Table(trained, _TRAINING_HEADER, text_columns=1)),
    ]
    rows: list[list[object]] = []
    for pair in pairs(runs):
        counts = [pair.shared, pair.only_first, pair.only_second]
        rows.append([f"{pair.first}, {pair.second}", pair.verdict, *counts])
    if rows:
        sections.append(Section("Pairs", note=_PAIR_NOTE, table=Table(rows, _PAIR_HEADER)))
    if options := differing_options(runs):
        header = ["option", *(run.name for run in runs)]
        rows = [[name, *values] for name, values in options.items()]
        table = Table(rows, header, text_columns=len(header))
        sections.append(Section("Options that differ", table=table))
    return sections


def _test_row(name: str, numbers: Mapping[str, Any]) -> list[object]:
    if "accuracy" not in numbers:
        return [name, "not tested", "", "", "", "", "", ""]
    low, high = numbers["accuracy_interval_95"]
    return [
        name,
        numbers["checkpoint"],
        numbers["test_images"],
        f"{numbers['accuracy']:.1%} ({low:.1%} to {high:.1%})",
        f"{numbers['balanced_accuracy']:.1%}",
        f"{numbers['macro_f1']:.1%}",
        f"{numbers['log_loss']:.3f}",
        f"{numbers['ece']:.3f}",
    ]


def _training_row(name: str, numbers: Mapping[str, Any]) -> list[object]:
    accuracy = ""
    if "best_validation_accuracy" in numbers:
        accuracy = f"{numbers['best_validation_accuracy']:.1%}"
    time = ""
    if "training_seconds" in numbers:
        time = f"{numbers['training_seconds'] / 60:.1f} min"
    return [name, accuracy, numbers.get("epochs", ""), time]
