"""Compute metrics, figures and reports from predictions, without Lightning."""

from flowers.evaluation.calibration import (
    fit_rejection,
    fit_temperature,
    reliability,
    with_temperature,
)
from flowers.evaluation.comparison import Run
from flowers.evaluation.cross_validation import FoldPredictions, summary_files
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
