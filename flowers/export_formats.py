"""The files a network can be exported to, and how to run them."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

# Maps RGB bytes (B, S, S, 3) to probabilities (B, K).
Run = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


class Classifier(nn.Module):
    """What is exported: from bytes to calibrated probabilities.

    Args:
        net: Maps images in [0, 1] to logits.
        temperature: What the logits are divided by.
    """

    def __init__(self, net: nn.Module, temperature: float) -> None:
        super().__init__()
        self.net = net
        self.temperature = temperature

    def forward(self, images: Tensor) -> Tensor:
        """Return probabilities ``(B, K)`` of RGB bytes ``(B, S, S, 3)``."""
        logits: Tensor = self.net(images.permute(0, 3, 1, 2).float() / 255)
        return (logits / self.temperature).softmax(dim=1)


def write_onnx(
    module: nn.Module, images: NDArray[np.uint8], file: Path, *, metadata: dict[str, str], int8: bool
) -> None:
    """Write an ONNX file with a batch of any size.

    Args:
        module: What to write.
        images: Images ``(N, S, S, 3)``; two of them are traced, and all choose the ranges of int8.
        file: The file.
        metadata: What the file says of itself.
        int8: Whether weights and features are of 8 bits.
    """
    import onnx  # noqa: PLC0415 (an optional extra)

    example, shapes = (torch.from_numpy(images[:2]),), {"images": {0: torch.export.Dim("batch")}}
    names: dict[str, Any] = {"input_names": ["images"], "output_names": ["probabilities"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they speak of the exporter's insides
        program = torch.onnx.export(module, example, dynamo=True, dynamic_shapes=shapes, verbose=False, **names)
    assert program is not None
    model = program.model_proto
    if int8:
        model = _quantized(model, images, folder=file.parent)
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, file)


def _quantized(model: Any, images: NDArray[np.uint8], *, folder: Path) -> Any:  # noqa: ANN401
    """Return a model with 8-bit convolutions and products, their ranges chosen on images."""
    import onnx  # noqa: PLC0415
    from onnxruntime.quantization import quantize_static  # noqa: PLC0415
    from onnxruntime.quantization.shape_inference import quant_pre_process  # noqa: PLC0415

    with tempfile.TemporaryDirectory(dir=folder) as work:
        plain, ready, small = (f"{work}/{name}.onnx" for name in ("plain", "ready", "small"))
        onnx.save(model, plain)
        quant_pre_process(plain, ready, skip_symbolic_shape=True)
        quantize_static(
            ready, small, _Batches(images), per_channel=True, op_types_to_quantize=["Conv", "Gemm", "MatMul"]
        )
        return onnx.load(small)


class _Batches:
    """Gives images to onnxruntime, batch by batch."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self.batches = iter(np.array_split(images, max(1, len(images) // 16)))

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        batch = next(self.batches, None)
        return None if batch is None else {"images": batch}


def onnx_runner(file: Path) -> Run:
    """Return a function that runs an ONNX file on the CPU."""
    import onnxruntime  # noqa: PLC0415

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images})[0]


def write_torch_export(module: nn.Module, images: NDArray[np.uint8], file: Path, *, metadata: dict[str, str]) -> None:
    """Write a torch.export file (``torch.export.load``) with a batch of any size.

    Args:
        module: What to write.
        images: Images ``(N, S, S, 3)``, two of which are traced.
        file: The file.
        metadata: What ``metadata.json`` in the file says.
    """
    shapes = {"images": {0: torch.export.Dim("batch")}}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they speak of the exporter's insides
        program = torch.export.export(module, (torch.from_numpy(images[:2]),), dynamic_shapes=shapes)
        torch.export.save(program, file, extra_files={"metadata.json": json.dumps(metadata)})


def torch_export_runner(file: Path) -> Run:
    """Return a function that runs a torch.export file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.load(file).module()

    def run(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.no_grad():
            probs: NDArray[np.float32] = program(torch.from_numpy(images)).numpy()
        return probs

    return run
