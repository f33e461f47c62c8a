"""From probabilities to answers about images."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


@dataclass  # not frozen: Lightning moves the fields of what predict_step returns
class Classification:
    """What a network says of an image.

    Args:
        label: The most probable class.
        probability: Its probability, after temperature scaling.
        probabilities: The probability of each class, by its name.
        rejected: Whether the probability is below the checkpoint's threshold: do not rely on the
            answer.
        path: The image's file; empty for an image that was given as bytes or pixels.
    """

    label: str
    probability: float
    probabilities: dict[str, float]
    rejected: bool
    path: str = field(default="", compare=False)


def classify(
    probs: Tensor, class_names: Sequence[str], *, threshold: float, paths: Sequence[str]
) -> list[Classification]:
    """Return an answer for each image.

    Args:
        probs: Probabilities ``(B, K)``.
        class_names: Names of the K classes.
        threshold: An answer with a smaller probability is rejected.
        paths: Files of the images; empty where there is none.
    """
    answers = []
    for row, path in zip(probs.tolist(), paths, strict=True):
        probability = max(row)
        label = class_names[row.index(probability)]
        probabilities = dict(zip(class_names, row, strict=True))
        # A probability that is no number is rejected, too.
        rejected = not probability >= threshold
        answers.append(Classification(label, probability, probabilities, rejected, path))
    return answers
