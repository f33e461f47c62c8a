"""LightningModules: loss, metrics and optimizer of a network."""

from flowers.tasks.checks import check_size, expect
from flowers.tasks.classification import ClassificationTask, Prediction
from flowers.tasks.classification_result import Classification, classify
from flowers.tasks.cnn import CNNTask
from flowers.tasks.transfer import TransferTask
