"""Inference with a checkpoint, and its export to ONNX and torch.export."""

from flowers.deploy.exporters import FORMATS, Classifier, Run
from flowers.deploy.predictor import FlowerPredictor
