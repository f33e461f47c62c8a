"""Find labels that are probably incorrect, from predictions."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from flowers.evaluation.predictions import PredictionTable


class LabelIssue(NamedTuple):
    """An image whose label is probably incorrect.

    Args:
        path: Path relative to the root.
        label: Class name of the label.
        suggested: Class name that the network predicts.
        label_prob: Probability of the label.
        suggested_prob: Probability of the suggested class.
    """

    path: str
    label: str
    suggested: str
    label_prob: float
    suggested_prob: float

    @property
    def margin(self) -> float:
        """Probability of the suggested class minus probability of the label."""
        return self.suggested_prob - self.label_prob

    @property
    def detail(self) -> str:
        """The label and the suggested class, with their probabilities."""
        label = f"labelled {self.label} ({self.label_prob:.0%})"
        return f"{label}, predicted {self.suggested} ({self.suggested_prob:.0%})"


def label_issues(predictions: PredictionTable) -> list[LabelIssue]:
    """Return the images whose label is probably incorrect, in order of decreasing margin.

    This is confident learning (https://arxiv.org/abs/1911.00068) with pruning by noise rate. An
    image is confidently of class j if its probability of j is at least the mean probability of j
    over the images labelled j. The confident images give an estimate n of how many images labelled
    i belong to class j. The issues are the n images labelled i with the largest margin between the
    probabilities of j and i, as far as the margin is positive.

    Args:
        predictions: Out-of-fold predictions, such as those of a cross-validation.
    """
    labels = predictions.labels
    probs = predictions.probs
    num_errors = _num_errors(labels, probs)
    issues = []
    for label, suggested in np.ndindex(num_errors.shape):
        margin = probs[:, suggested] - probs[:, label]
        candidates = np.flatnonzero((labels == label) & (margin > 0))
        order = np.argsort(-margin[candidates], kind="stable")
        for i in candidates[order][: num_errors[label, suggested]]:
            issues.append(_issue(predictions, i, suggested))
    issues.sort(key=lambda issue: issue.margin, reverse=True)
    first: dict[str, LabelIssue] = {}  # for each image, the suggestion of largest margin
    for issue in issues:
        first.setdefault(issue.path, issue)
    return list(first.values())


def top_losses(predictions: PredictionTable, count: int) -> dict[int, LabelIssue]:
    """Return the misclassified images with the highest loss, by their row in the predictions.

    Args:
        predictions: Predictions, such as those of the training images.
        count: Largest number of images.
    """
    label_probs = predictions.probs[np.arange(len(predictions.labels)), predictions.labels]
    incorrect = np.flatnonzero(~predictions.correct)
    order = incorrect[np.argsort(label_probs[incorrect], kind="stable")][:count]
    issues = {}
    for row in order.tolist():
        issues[row] = _issue(predictions, row, int(predictions.predicted[row]))
    return issues


def _issue(predictions: PredictionTable, row: int, suggested: int) -> LabelIssue:
    label = predictions.labels[row]
    return LabelIssue(
        path=predictions.paths[row],
        label=predictions.class_names[label],
        suggested=predictions.class_names[suggested],
        label_prob=float(predictions.probs[row, label]),
        suggested_prob=float(predictions.probs[row, suggested]),
    )


def _num_errors(labels: NDArray[np.int64], probs: NDArray[np.float64]) -> NDArray[np.int64]:
    """Estimate how many images of each label (row) belong to another class (column) ``(K, K)``."""
    num_classes = probs.shape[1]
    mean_probs = np.full(num_classes, np.inf)
    for label in np.unique(labels):
        mean_probs[label] = probs[labels == label, label].mean()
    candidates = np.where(probs >= mean_probs, probs, -1.0)
    confident = candidates.max(axis=1) >= 0
    suggested = candidates[confident].argmax(axis=1)
    fractions = confusion_matrix(
        labels[confident], suggested, labels=np.arange(num_classes), normalize="true"
    )
    label_counts = np.bincount(labels, minlength=num_classes)
    num_errors: NDArray[np.int64] = (fractions * label_counts[:, None]).round().astype(int)
    np.fill_diagonal(num_errors, 0)
    return num_errors
