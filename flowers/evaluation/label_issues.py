"""Find labels that are probably incorrect, from out-of-fold predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flowers.evaluation.predictions import PredictionTable


class LabelIssue(NamedTuple):
    """An image whose label is probably incorrect.

    Args:
        path: Path relative to the root.
        label: Its class.
        suggested: The class that the network predicts.
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
        """Difference of the two probabilities."""
        return self.suggested_prob - self.label_prob


def label_issues(predictions: PredictionTable) -> list[LabelIssue]:
    """Return the images whose label is probably incorrect, the most probable ones first.

    Confident learning (https://arxiv.org/abs/1911.00068), pruned by noise rate. The number of
    images labelled i that belong to class j is estimated from those whose probability of j is at
    least the mean probability of j over the images labelled j. That many images with the largest
    margin between j and i are the issues.

    Args:
        predictions: Out-of-fold predictions, such as those of a cross-validation.
    """
    labels = predictions.labels
    probs = predictions.probs
    num_errors = _num_errors(labels, probs)
    issues: dict[str, LabelIssue] = {}
    for label, suggested in np.ndindex(num_errors.shape):
        margin = probs[:, suggested] - probs[:, label]
        candidates = np.flatnonzero((labels == label) & (margin > 0))
        order = np.argsort(-margin[candidates], kind="stable")
        for i in candidates[order][: num_errors[label, suggested]]:
            issue = LabelIssue(
                path=predictions.paths[i],
                label=predictions.class_names[label],
                suggested=predictions.class_names[suggested],
                label_prob=float(probs[i, label]),
                suggested_prob=float(probs[i, suggested]),
            )
            earlier = issues.get(issue.path)
            if earlier is None or issue.margin >= earlier.margin:
                issues[issue.path] = issue
    return sorted(issues.values(), key=lambda issue: issue.margin, reverse=True)


def _num_errors(labels: NDArray[np.int64], probs: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the estimated number of images of each label (row) in each other class ``(K, K)``."""
    num_classes = probs.shape[1]
    mean_probs = np.full(num_classes, np.inf)
    for label in np.unique(labels):
        mean_probs[label] = probs[labels == label, label].mean()
    candidates = np.where(probs >= mean_probs, probs, -1.0)
    confident = candidates.max(axis=1) >= 0
    joint = np.zeros((num_classes, num_classes))
    np.add.at(joint, (labels[confident], candidates[confident].argmax(axis=1)), 1)
    rows = joint.sum(axis=1, keepdims=True)
    fractions = np.divide(joint, rows, out=np.zeros_like(joint), where=rows > 0)
    label_counts = np.bincount(labels, minlength=num_classes)
    num_errors: NDArray[np.int64] = (fractions * label_counts[:, None]).round().astype(int)
    np.fill_diagonal(num_errors, 0)
    return num_errors
