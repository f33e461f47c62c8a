"""Predictions to numbers, tables and figures; no Lightning."""

from flowers.evaluation.calibration import (
    Rejection,
    Reliability,
    fit_rejection,
    fit_temperature,
    reliability,
    with_temperature,
)
from flowers.evaluation.comparison import (
    McNemar,
    Pair,
    Run,
    differing_options,
    mcnemar,
    pairs,
    run_numbers,
)
from flowers.evaluation.comparison_page import (
    comparison_figures,
    comparison_html,
    comparison_json,
    comparison_markdown,
)
from flowers.evaluation.cross_validation import (
    pool,
    pooled_confusion,
    summarize,
    summary_json,
    summary_markdown,
)
from flowers.evaluation.figures import (
    confidence_figure,
    confusion_figure,
    gallery_figure,
    history_figure,
    overlay_figure,
    precision_recall_figure,
    reliability_figure,
    roc_figure,
)
from flowers.evaluation.grad_cam import grad_cam
from flowers.evaluation.intervals import fold_interval, wilson_interval
from flowers.evaluation.label_issues import LabelIssue, label_issues
from flowers.evaluation.metrics import confusion, scores
from flowers.evaluation.pages import data_uri, figure_bytes, figure_svg, render_page
from flowers.evaluation.predictions import (
    PREDICTION_COLUMNS,
    PredictionTable,
    error_row,
    prediction_row,
    predictions_csv,
    read_predictions,
)
from flowers.evaluation.report import Example, Report, report_figures, report_numbers
from flowers.evaluation.report_page import report_html, report_json, report_markdown
from flowers.evaluation.training_curves import Curve, read_history, training_seconds

__all__ = [
    "PREDICTION_COLUMNS",
    "Curve",
    "Example",
    "LabelIssue",
    "McNemar",
    "Pair",
    "PredictionTable",
    "Rejection",
    "Reliability",
    "Report",
    "Run",
    "comparison_figures",
    "comparison_html",
    "comparison_json",
    "comparison_markdown",
    "confidence_figure",
    "confusion",
    "confusion_figure",
    "data_uri",
    "differing_options",
    "error_row",
    "figure_bytes",
    "figure_svg",
    "fit_rejection",
    "fit_temperature",
    "fold_interval",
    "gallery_figure",
    "grad_cam",
    "history_figure",
    "label_issues",
    "mcnemar",
    "overlay_figure",
    "pairs",
    "pool",
    "pooled_confusion",
    "precision_recall_figure",
    "prediction_row",
    "predictions_csv",
    "read_history",
    "read_predictions",
    "reliability",
    "reliability_figure",
    "render_page",
    "report_figures",
    "report_html",
    "report_json",
    "report_markdown",
    "report_numbers",
    "roc_figure",
    "run_numbers",
    "scores",
    "summarize",
    "summary_json",
    "summary_markdown",
    "training_seconds",
    "wilson_interval",
    "with_temperature",
]
