"""The report of a test: accuracy, calibration, figures, and examples of mistakes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from flowers.evaluation.calibration import reliability, with_temperature
from flowers.evaluation.figures import (
    MIN_BIN,
    confidence_figure,
    confusion_figure,
    figure_bytes,
    history_figure,
    precision_recall_figure,
    reliability_figure,
    roc_figure,
)
from flowers.evaluation.label_issues import LabelIssue
from flowers.evaluation.metrics import (
    class_metrics,
    confusion,
    overall_metrics,
    top_k_accuracy,
    wilson_interval,
)
from flowers.evaluation.predictions import PredictionTable, predictions_csv
from flowers.evaluation.reports.page import Card, Picture, Section, Table, class_bars, page_files
from flowers.evaluation.training_curves import Curve

_TOP_K = 5
_MOST_CONFUSED = 10
_ISSUES_NOTE = (
    "At most 10,000 training images were evaluated without augmentation; these misclassified "
    "images have the highest loss. The network was trained on their labels, so a high loss means "
    "that a label is incorrect or that an image is hard: look at the image before you change its "
    "label. `audit` with the predictions.csv of a cross-validation finds more label issues."
)


@dataclass(frozen=True)
class Report:
    """The evaluation of a checkpoint.

    Args:
        title: Heading of the page.
        predictions: Uncalibrated predictions.
        summary: First rows of the table at the top, such as date and command of the test.
        temperature: The checkpoint's temperature; None without calibration.
        threshold: The checkpoint's confidence threshold, chosen on the validation split; None
            without calibration.
        details: Tables of names and values by their titles, such as data, training, environment.
        curves: Scalars of the run by their names.
        marks: Epochs to mark in the curves, counted from 0, by their labels.
        mistakes: Images of the most confident incorrect predictions, by row of the predictions.
        successes: Images of some correct predictions, by row of the predictions.
        examples_note: Note on mistakes and successes: what Grad-CAM shows, or why it is missing.
        label_issues: Training images with a high loss.
    """

    title: str
    predictions: PredictionTable
    summary: Mapping[str, str] = field(default_factory=dict)
    temperature: float | None = None
    threshold: float | None = None
    details: dict[str, dict[str, str]] = field(default_factory=dict)
    curves: Mapping[str, Curve] = field(default_factory=dict)
    marks: Mapping[str, int] = field(default_factory=dict)
    mistakes: Mapping[int, Picture] = field(default_factory=dict)
    successes: Mapping[int, Picture] = field(default_factory=dict)
    examples_note: str = ""
    label_issues: Mapping[LabelIssue, Picture] = field(default_factory=dict)

    @property
    def calibrated(self) -> PredictionTable:
        """The predictions with calibrated probabilities, if the checkpoint has a temperature."""
        if self.temperature is None:
            return self.predictions
        return with_temperature(self.predictions, self.temperature)


def report_files(report: Report, csv_predictions: PredictionTable) -> dict[str, str | bytes]:
    """Return the files of a report, by their names.

    Args:
        report: The report.
        csv_predictions: Predictions to write to ``predictions.csv``, calibrated as in ``predict``.
    """
    numbers = report_numbers(report)
    figures = report_figures(report)
    sections = _sections(report, numbers, figures)
    files = page_files("report", report.title, sections, numbers)
    files["predictions.csv"] = predictions_csv(csv_predictions, threshold=report.threshold or 0.0)
    for title, figure in figures.items():
        files[f"figures/{title.lower().replace(' ', '_')}.png"] = figure_bytes(figure)
    return files


def report_numbers(report: Report) -> dict[str, Any]:
    """Return all numbers of a report, the content of ``report.json``."""
    predictions = report.predictions
    numbers = {
        "images": len(predictions.labels),
        "correct": int(predictions.correct.sum()),
        **overall_metrics(predictions),
    }
    if len(predictions.class_names) > _TOP_K:
        numbers[f"top_{_TOP_K}_accuracy"] = top_k_accuracy(predictions, _TOP_K)
    if report.temperature is not None:
        calibrated = overall_metrics(report.calibrated)
        numbers["temperature"] = report.temperature
        numbers["ece_calibrated"] = calibrated["ece"]
        numbers["log_loss_calibrated"] = calibrated["log_loss"]
    if report.threshold is not None:
        numbers["rejection"] = _rejection_numbers(report.calibrated, report.threshold)
    numbers["classes"] = class_metrics(predictions)
    numbers["confusion"] = confusion(predictions).tolist()
    numbers["label_issues"] = [issue._asdict() for issue in report.label_issues]
    numbers["details"] = report.details
    return numbers


def report_figures(report: Report) -> dict[str, Figure]:
    """Return the figures of a report by title; reliability diagrams need enough images."""
    predictions = report.predictions
    calibrated = report.calibrated
    figures = {
        "Confusion matrix": confusion_figure(confusion(predictions), predictions.class_names),
        "Receiver operating characteristic": roc_figure(predictions),
        "Precision and recall": precision_recall_figure(predictions),
    }
    tables = {"Reliability": ("Uncalibrated", predictions)}
    if report.temperature is not None:
        title = f"Temperature {report.temperature:.2f}"
        tables["Reliability after temperature scaling"] = (title, calibrated)
    for name, (title, table) in tables.items():
        bins = reliability(table)
        if len(bins.merged(MIN_BIN).counts) > 1:
            figures[name] = reliability_figure(bins, title=title)
    figures["Confidence"] = confidence_figure(calibrated)
    if any(name.startswith(("train/", "val/")) for name in report.curves):
        figures["Training"] = history_figure(report.curves, marks=report.marks)
    return figures


def _rejection_numbers(calibrated: PredictionTable, threshold: float) -> dict[str, Any]:
    """Return coverage and accuracy of the predictions accepted with a confidence threshold."""
    correct = calibrated.correct[calibrated.confidence >= threshold]
    accuracy = None
    interval = None
    if len(correct):
        accuracy = float(correct.mean())
        interval = list(wilson_interval(accuracy, len(correct)))
    return {
        "threshold": threshold,
        "coverage": len(correct) / len(calibrated.correct),
        "accuracy_when_answered": accuracy,
        "accuracy_interval_95": interval,
    }


def _sections(
    report: Report, numbers: Mapping[str, Any], figures: Mapping[str, Figure]
) -> list[Section]:
    sections = [
        Section(table=Table([*report.summary.items(), *_headline(numbers)])),
        Section("Classes", table=_class_table(numbers["classes"])),
    ]
    if confusions := _most_confused(report.predictions):
        table = Table(confusions, header=["label", "predicted", "images"])
        sections.append(Section("Most frequent confusions", table=table))
    sections.append(Section("Figures", figures=figures))
    calibrated = report.calibrated
    note = report.examples_note
    if report.temperature is not None:
        note += " The probabilities are calibrated by temperature scaling."
    for title, pictures in {
        "Worst mistakes": report.mistakes,
        "Correct predictions": report.successes,
    }.items():
        if pictures:
            cards = [_card(calibrated, row, picture) for row, picture in pictures.items()]
            sections.append(Section(title, note=note, cards=cards))
    if report.label_issues:
        cards = [Card(issue.detail, [image]) for issue, image in report.label_issues.items()]
        sections.append(Section("Training images to check", note=_ISSUES_NOTE, cards=cards))
    for title, details in report.details.items():
        if len(details) == 1:  # text of several lines, such as a configuration
            [text] = details.values()
            sections.append(Section(title, text=text))
        else:
            sections.append(Section(title, table=Table(list(details.items()))))
    return sections


def _headline(numbers: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return names and values of the table at the top of a report."""
    accuracy = f"{numbers['accuracy']:.1%} ({numbers['correct']} of {numbers['images']})"
    rows = [
        ("accuracy", accuracy),
        ("95 % interval (Wilson)", _interval(numbers["accuracy_interval_95"])),
        ("balanced accuracy", f"{numbers['balanced_accuracy']:.1%}"),
        ("macro-F1", f"{numbers['macro_f1']:.1%}"),
    ]
    top_k = f"top_{_TOP_K}_accuracy"
    if top_k in numbers:
        rows.append((f"top-{_TOP_K} accuracy", f"{numbers[top_k]:.1%}"))
    for key, name in {"log_loss": "log loss", "ece": "expected calibration error (ECE)"}.items():
        value = f"{numbers[key]:.3f}"
        calibrated = numbers.get(f"{key}_calibrated")
        if calibrated is not None:
            value += f"; after temperature scaling {calibrated:.3f}"
            if round(calibrated, 3) > round(numbers[key], 3):
                value += ", worse on these images"
        rows.append((name, value))
    if rejection := numbers.get("rejection"):
        # A threshold above 1, which rejects every prediction, is shown as 100 %.
        rows.append(("confidence threshold", f"{min(rejection['threshold'], 1):.1%}"))
        rows.append(("coverage", f"{rejection['coverage']:.1%}"))
        if rejection["accuracy_when_answered"] is not None:
            interval = _interval(rejection["accuracy_interval_95"])
            value = f"{rejection['accuracy_when_answered']:.1%} ({interval})"
            rows.append(("accuracy when answered", value))
    return rows


def _interval(bounds: Sequence[float]) -> str:
    return f"{bounds[0]:.1%} to {bounds[1]:.1%}"


def _class_table(classes: Mapping[str, Mapping[str, float]]) -> Table:
    rows = []
    for name, values in classes.items():
        scores = [f"{values[metric]:.3f}" for metric in ("precision", "recall", "F1")]
        rows.append([name, *scores, values["support"]])
    return Table(rows, header=["class", "precision", "recall", "F1", "images"], text_columns=1)


def _most_confused(predictions: PredictionTable) -> list[tuple[str, str, int]]:
    """Return label, prediction and count of the most frequent confusions."""
    counts = confusion(predictions)
    names = predictions.class_names
    np.fill_diagonal(counts, 0)
    rows = []
    for position in np.argsort(-counts, axis=None, kind="stable")[:_MOST_CONFUSED]:
        label, predicted = np.unravel_index(position, counts.shape)
        if counts[label, predicted]:
            rows.append((names[label], names[predicted], int(counts[label, predicted])))
    return rows


def _card(calibrated: PredictionTable, row: int, picture: Picture) -> Card:
    names = calibrated.class_names
    probs = calibrated.probs[row]
    label = names[calibrated.labels[row]]
    predicted = names[probs.argmax()]
    title = label if predicted == label else f"label {label}, predicted {predicted}"
    return Card(title, [picture], class_bars(names, probs.tolist())[:3])
