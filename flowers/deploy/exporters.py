"""Export a network to ONNX and torch.export, and run the exported files."""

import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

_SHAPES = {"images": {0: torch.export.Dim("batch")}}  # a batch of any size
# Maps RGB bytes (B, S, S, 3) to probabilities (B, K).
Runner = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


class Classifier(nn.Module):
    """The module that is exported: it maps RGB bytes to calibrated probabilities.

    Args:
        net: Maps images in [0, 1] to logits.
        temperature: Divisor of the logits.
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
    module: nn.Module, images: NDArray[np.uint8], file: Path, *, metadata: dict[str, str]
) -> None:
    """Write an ONNX file that accepts batches of any size.

    Args:
        module: The module.
        images: Images ``(N, S, S, 3)``, two of which are traced.
        file: The file.
        metadata: Metadata of the file.
    """
    import onnx  # noqa: PLC0415 (an optional extra)

    names: dict[str, Any] = {"input_names": ["images"], "output_names": ["probabilities"]}
    with warnings.catch_warnings(action="ignore"):  # they concern the exporter's own code
        program = torch.onnx.export(
            module, _example(images), dynamo=True, dynamic_shapes=_SHAPES, verbose=False, **names
        )
    assert program is not None
    model = program.model_proto
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, file)


def _example(images: NDArray[np.uint8]) -> tuple[Tensor]:
    """Return two images to trace: with one image, the exporter fixes the batch size at 1."""
    return (torch.from_numpy(np.resize(images, (2, *images.shape[1:]))),)


def onnx_runner(file: Path) -> Runner:
    """Return a function that runs an ONNX file on the CPU."""
    import onnxruntime  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    # Otherwise the threads of ONNX Runtime spin after a batch and slow down other processes.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images})[0]


def write_torch_export(
    module: nn.Module, images: NDArray[np.uint8], file: Path, *, metadata: dict[str, str]
) -> None:
    """Write a file for ``torch.export.load`` that accepts batches of any size.

    Args:
        module: The module.
        images: Images ``(N, S, S, 3)``, two of which are traced.
        file: The file.
        metadata: Content of ``metadata.json`` in the file.
    """
    # The warnings concern the exporter's own code.
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):
        program = torch.export.export(module, _example(images), dynamic_shapes=_SHAPES)
        content = io.BytesIO()  # on a full disk, torch's own writer would abort the process
        torch.export.save(program, content, extra_files={"metadata.json": json.dumps(metadata)})
    file.write_bytes(content.getvalue())


def torch_export_runner(file: Path) -> Runner:
    """Return a function that runs a torch.export file."""
    with warnings.catch_warnings(action="ignore"):
        program = torch.export.load(file).module()

    def run(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.no_grad():
            probs: NDArray[np.float32] = program(torch.from_numpy(images)).numpy()
        return probs

    return run


# Suffix, writer and runner of each format.
FORMATS = {
    "onnx": (".onnx", write_onnx, onnx_runner),
    "torch_export": (".pt2", write_torch_export, torch_export_runner),
}
