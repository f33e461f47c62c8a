"""Predictions to numbers, tables and figures; no Lightning."""

from flowers.evaluation.calibration import (
    Rejection,
    Reliability,
    fit_rejection,
    fit_temperature,
    reliability,
    with_temperature,
)
from flowers.evaluation.cross_validation import pooled_confusion, summarize, summary_markdown
from flowers.evaluation.explain import grad_cam
from flowers.evaluation.history import Curve, read_history
from flowers.evaluation.intervals import fold_interval, wilson_interval
from flowers.evaluation.label_issues import LabelIssue, label_issues
from flowers.evaluation.pages import render_page
from flowers.evaluation.plots import (
    confidence_figure,
    confusion_figure,
    history_figure,
    precision_recall_figure,
    reliability_figure,
    roc_figure,
)
from flowers.evaluation.predictions import Predictions, read_predictions
from flowers.evaluation.scores import confusion, scores

__all__ = [
    "Curve",
    "LabelIssue",
    "Predictions",
    "Rejection",
    "Reliability",
    "confidence_figure",
    "confusion",
    "confusion_figure",
    "fit_rejection",
    "fit_temperature",
    "fold_interval",
    "grad_cam",
    "history_figure",
    "label_issues",
    "pooled_confusion",
    "precision_recall_figure",
    "read_history",
    "read_predictions",
    "reliability",
    "reliability_figure",
    "render_page",
    "roc_figure",
    "scores",
    "summarize",
    "summary_markdown",
    "wilson_interval",
    "with_temperature",
]
