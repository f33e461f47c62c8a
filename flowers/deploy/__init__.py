"""Inference with a checkpoint, and its export to ONNX and torch.export."""

from flowers.deploy.exporters import FORMATS, Classifier, Runner
from flowers.deploy.predictor import FlowerPredictor
