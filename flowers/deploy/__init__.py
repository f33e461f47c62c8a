"""Inference with a checkpoint, and its export to ONNX and torch.export."""

from flowers.deploy.exporters import (
    Classifier,
    Run,
    onnx_runner,
    torch_export_runner,
    write_onnx,
    write_torch_export,
)
from flowers.deploy.predictor import FlowerPredictor

__all__ = [
    "Classifier",
    "FlowerPredictor",
    "Run",
    "onnx_runner",
    "torch_export_runner",
    "write_onnx",
    "write_torch_export",
]
