"""Which labels are most likely wrong, from the predictions of networks that were not trained on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flowers.evaluation.predictions import PredictionTable


class LabelIssue(NamedTuple):
    """An image whose label the network is sure enough is another.

    Args:
        path: Path relative to the root.
        label: The class it lies under.
        suggested: The class that the network sees.
        label_prob: Probability of the label.
        suggested_prob: Probability of the suggested class.
    """

    path: str
    label: str
    suggested: str
    label_prob: float
    suggested_prob: float


def label_issues(predictions: PredictionTable) -> list[LabelIssue]:
    """Return the images that are likely of another class than their label, the most likely wrong ones first.

    Confident learning (https://arxiv.org/abs/1911.00068), pruned by noise rate: how many images
    labelled i are of class j is estimated from those that get a probability for j as high as images
    labelled j do on average; that many with the largest margin between j and i are the issues, all
    of them ranked by that margin.

    Args:
        predictions: Of networks that were not trained on the images they are for, as of a
            cross-validation.
    """
    labels, probs, names = predictions.labels, predictions.probs, predictions.class_names
    wrong = _confident_joint(labels, probs)
    issues = []
    for label, suggested in np.ndindex(wrong.shape):
        margin = probs[:, suggested] - probs[:, label]
        candidates = np.flatnonzero((labels == label) & (margin > 0))
        chosen = candidates[np.argsort(-margin[candidates], kind="stable")][
            : wrong[label, suggested]
        ]
        issues += [
            LabelIssue(
                predictions.paths[i],
                names[label],
                names[suggested],
                float(probs[i, label]),
                float(probs[i, suggested]),
            )
            for i in chosen
        ]
    best = {
        issue.path: issue for issue in sorted(issues, key=_margin)
    }  # the last, largest, suggestion stays
    return sorted(best.values(), key=_margin, reverse=True)


def _margin(issue: LabelIssue) -> float:
    return issue.suggested_prob - issue.label_prob


def _confident_joint(labels: NDArray[np.int64], probs: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return how many images of each label (row) are estimated to be of each other class (column), ``(K, K)``."""
    classes = np.arange(probs.shape[1])
    usual = np.array(
        [probs[labels == k, k].mean() if (labels == k).any() else np.inf for k in classes]
    )
    candidates = np.where(probs >= usual, probs, -1.0)
    confident = candidates.max(axis=1) >= 0
    joint = np.zeros((len(classes), len(classes)))
    np.add.at(joint, (labels[confident], candidates[confident].argmax(axis=1)), 1)
    rows = joint.sum(axis=1, keepdims=True)
    share = np.divide(joint, rows, out=np.zeros_like(joint), where=rows > 0)
    estimated: NDArray[np.int64] = (
        (share * np.bincount(labels, minlength=len(classes))[:, None]).round().astype(int)
    )
    np.fill_diagonal(estimated, 0)
    return estimated
