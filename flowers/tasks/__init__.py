"""How a network learns: the only LightningModules."""

from flowers.tasks.base import ClassificationTask, Prediction
from flowers.tasks.checks import check_size
from flowers.tasks.cnn import CNNTask
from flowers.tasks.transfer import TransferTask
from flowers.tasks.tta import TestTimeAugmentation

__all__ = ["CNNTask", "ClassificationTask", "Prediction", "TestTimeAugmentation", "TransferTask", "check_size"]
