"""The classification of an image, from its probabilities."""

from dataclasses import dataclass, field


@dataclass  # not frozen: Lightning assigns to the fields of predict_step's output
class Classification:
    """The classification of one image.

    Args:
        label: The most probable class.
        probability: Probability of ``label``, after temperature scaling.
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
    probs: list[float], class_names: list[str], *, threshold: float, path: str
) -> Classification:
    """Return the classification of an image.

    Args:
        probs: Probabilities ``(K,)``.
        class_names: Names of the K classes.
        threshold: Confidence threshold; a classification with a lower probability is rejected.
        path: File of the image; empty for an image without a file.
    """
    probability = max(probs)
    return Classification(
        label=class_names[probs.index(probability)],
        probability=probability,
        probabilities=dict(zip(class_names, probs, strict=True)),
        rejected=not probability >= threshold,  # also rejects NaN
        path=path,
    )
