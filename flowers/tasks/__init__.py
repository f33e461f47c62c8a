"""How a network learns: the only LightningModules."""

from flowers.tasks.base import ClassificationTask, Prediction
from flowers.tasks.cnn import CNNTask

__all__ = ["CNNTask", "ClassificationTask", "Prediction"]
