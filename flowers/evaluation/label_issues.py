"""Which labels are most likely wrong, from the predictions of networks that were not trained on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from flowers.evaluation.predictions import Predictions


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


def label_issues(predictions: Predictions) -> list[LabelIssue]:
    """Return the images that are confidently of another class than their label, the most likely wrong ones first.

    Confident learning (https://arxiv.org/abs/1911.00068): the network sees a class confidently if it gives it at least
    the mean probability it gives to images that bear its label; an image is an issue if the most probable of those
    classes is not its label. Issues are ranked by the margin between label and suggestion.

    Args:
        predictions: Of networks that were not trained on the image they are for, as of a cross-validation.
    """
    labels, probs = predictions.labels, predictions.probs
    classes = np.arange(probs.shape[1])
    confident = np.array([probs[labels == k, k].mean() if (labels == k).any() else np.inf for k in classes])
    candidates = np.where(probs >= confident, probs, -1.0)
    suggested = candidates.argmax(axis=1)
    issues = (candidates.max(axis=1) >= 0) & (suggested != labels)
    rows = np.arange(len(labels))
    margin = probs[rows, labels] - probs[rows, suggested]
    names = predictions.class_names
    return [
        LabelIssue(
            predictions.paths[i],
            names[labels[i]],
            names[suggested[i]],
            float(probs[i, labels[i]]),
            float(probs[i, suggested[i]]),
        )
        for i in np.argsort(margin, kind="stable")
        if issues[i]
    ]
