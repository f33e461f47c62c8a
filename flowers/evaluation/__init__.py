"""Numbers, figures and reports from predictions; no Lightning."""

from flowers.evaluation.calibration import (
    fit_rejection,
    fit_temperature,
    reliability,
    with_temperature,
)
from flowers.evaluation.comparison import Run
from flowers.evaluation.cross_validation import summary_files
from flowers.evaluation.examples import best_successes, worst_mistakes
from flowers.evaluation.figures import (
    confusion_figure,
    figure_bytes,
    gallery_figure,
    history_figure,
    jpeg_bytes,
)
from flowers.evaluation.grad_cam import add_overlays, grad_cam
from flowers.evaluation.label_issues import LabelIssue, label_issues, top_losses
from flowers.evaluation.metrics import class_metrics, confusion, scores, wilson_interval
from flowers.evaluation.predictions import (
    PREDICTION_COLUMNS,
    PredictionTable,
    error_row,
    header_row,
    prediction_row,
    read_predictions,
)
from flowers.evaluation.reports.comparison_report import comparison_files
from flowers.evaluation.reports.page import (
    Bar,
    Card,
    Download,
    Picture,
    Section,
    Table,
    class_bars,
    page_html,
)
from flowers.evaluation.reports.report import Report, report_files
from flowers.evaluation.training_curves import Curve, read_history, training_seconds

__all__ = [
    "PREDICTION_COLUMNS",
    "Bar",
    "Card",
    "Curve",
    "Download",
    "LabelIssue",
    "Picture",
    "PredictionTable",
    "Report",
    "Run",
    "Section",
    "Table",
    "add_overlays",
    "best_successes",
    "class_bars",
    "class_metrics",
    "comparison_files",
    "confusion",
    "confusion_figure",
    "error_row",
    "figure_bytes",
    "fit_rejection",
    "fit_temperature",
    "gallery_figure",
    "grad_cam",
    "header_row",
    "history_figure",
    "jpeg_bytes",
    "label_issues",
    "page_html",
    "prediction_row",
    "read_history",
    "read_predictions",
    "reliability",
    "report_files",
    "scores",
    "summary_files",
    "top_losses",
    "training_seconds",
    "wilson_interval",
    "with_temperature",
    "worst_mistakes",
]
