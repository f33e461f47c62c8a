"""From probabilities to classes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


@dataclass  # not frozen: Lightning moves the fields of what predict_step returns
class Classification:
    """The classification of one image.

    Args:
        label: The most probable class.
        probability: Its probability, after temperature scaling.
        probabilities: The probability of each class, by class name.
        rejected: Whether the probability is below the checkpoint's confidence threshold.
        path: File of the image; empty for an image that was given as bytes or pixels.
    """

    label: str
    probability: float
    probabilities: dict[str, float]
    rejected: bool
    path: str = field(default="", compare=False)


def classify(
    probs: Tensor, class_names: Sequence[str], *, threshold: float, paths: Sequence[str]
) -> list[Classification]:
    """Return the classification of each image.

    Args:
        probs: Probabilities ``(B, K)``.
        class_names: Names of the K classes.
        threshold: Confidence threshold; a less probable class is rejected.
        paths: Files of the images; empty for an image without a file.
    """
    classifications = []
    for row, path in zip(probs.tolist(), paths, strict=True):
        probability = max(row)
        label = class_names[row.index(probability)]
        probabilities = dict(zip(class_names, row, strict=True))
        rejected = not probability >= threshold  # also rejects NaN
        classifications.append(Classification(label, probability, probabilities, rejected, path))
    return classifications
