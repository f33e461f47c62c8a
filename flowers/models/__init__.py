"""Networks: pure ``nn.Module``, from images in [0, 1] to logits."""

from flowers.models.classifier import ImageClassifier
from flowers.models.cnn import flower_cnn
from flowers.models.layers import Norm, Standardize

__all__ = ["ImageClassifier", "Norm", "Standardize", "flower_cnn"]
