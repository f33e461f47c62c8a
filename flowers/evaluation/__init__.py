"""Predictions to numbers, tables and figures; no Lightning."""

from flowers.evaluation.cross_validation import pooled_confusion, summarize, summary_markdown
from flowers.evaluation.intervals import fold_interval, wilson_interval
from flowers.evaluation.label_issues import LabelIssue, label_issues
from flowers.evaluation.pages import render_page
from flowers.evaluation.predictions import Predictions, read_predictions
from flowers.evaluation.scores import confusion, scores

__all__ = [
    "LabelIssue",
    "Predictions",
    "confusion",
    "fold_interval",
    "label_issues",
    "pooled_confusion",
    "read_predictions",
    "render_page",
    "scores",
    "summarize",
    "summary_markdown",
    "wilson_interval",
]
