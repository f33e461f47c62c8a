"""``python -m flowers export``: a checkpoint as a file for other programs, which has to agree with it."""

from __future__ import annotations

import json
import tempfile
import time
import warnings
from argparse import ArgumentParser
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flowers.data import DRAWN_CLASSES, draw_flower, find_images, load_image
from flowers.inference import FlowerPredictor

_PURPOSE = (
    "Write a checkpoint as ONNX or torch.export: bytes in, calibrated probabilities out, nothing else to get wrong."
)
_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
# Both compute in 32 bits, in another order; int8 may differ more, but has to agree on the class.
_TOLERANCE = 1e-4
_INT8_AGREEMENT = 0.99
_NUM_DRAWN = 200

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


def main(args: list[str]) -> int:
    """Run the verb and return the exit status: 0, or 1 where the file disagreed with the checkpoint and was deleted.

    Args:
        args: The options, as on the command line.

    Raises:
        FileExistsError: The file to write exists.
        ValueError: The checkpoint is none, an option is wrong, or a package is missing.
        OSError: A file cannot be read or written.
    """
    options = _options(args)
    missing = [name for name in _PACKAGES if find_spec(name) is None] if options.format == "onnx" else []
    if missing:
        raise ValueError(f"--format onnx: {', '.join(missing)} are missing; install them: pip install -e '.[export]'")
    suffix = ".onnx" if options.format == "onnx" else ".pt2"
    file = options.out or Path(options.ckpt_path).with_suffix(suffix)
    if file.exists():
        raise FileExistsError(f"--out {file}: the file exists. Give another name, or move it.")
    predictor = FlowerPredictor(options.ckpt_path, device="cpu")
    module = Classifier(predictor.task.net, predictor.temperature).eval()
    images = check_images(options.images, predictor.decoding)
    metadata = {"class_names": json.dumps(predictor.class_names), **{k: str(v) for k, v in predictor.decoding.items()}}
    metadata |= {"temperature": str(predictor.temperature), "rejection_threshold": str(predictor.threshold)}
    if options.format == "onnx":
        write_onnx(module, images, file, metadata=metadata, int8=options.quantize == "int8")
        run = onnx_runner(file)
    else:
        write_torch_export(module, images, file, metadata=metadata)
        run = torch_export_runner(file)
    wrong = disagreement(run, module, images, int8=options.quantize == "int8")
    if wrong:
        file.unlink()
        print(f"{file} is deleted, it disagrees with the checkpoint: {wrong}")
        return 1
    _print_cost(file, run, module, images)
    return 0


def _options(args: list[str]) -> Any:  # noqa: ANN401
    parser = ArgumentParser(prog="python -m flowers export", allow_abbrev=False, description=_PURPOSE)
    parser.add_argument("--ckpt_path", required=True, help="checkpoint, as best.ckpt in a run folder's checkpoints")
    parser.add_argument("--format", choices=("onnx", "torch_export"), default="onnx", help="what to write (onnx)")
    parser.add_argument("--quantize", choices=("int8",), help="8-bit weights and features, with ONNX")
    parser.add_argument("--out", type=Path, help="file to write; by default beside the checkpoint")
    parser.add_argument(
        "--images",
        nargs="+",
        help="files, folders or patterns to compare on, and to choose the int8 ranges on; by default drawn flowers",
    )
    options = parser.parse_args(args)
    if options.quantize and options.format != "onnx":
        parser.error("--quantize int8: expected --format onnx")
    return options


def check_images(wanted: list[str] | None, decoding: dict[str, Any]) -> NDArray[np.uint8]:
    """Return the images ``(N, S, S, 3)`` on which an exported file is compared.

    Args:
        wanted: Files, folders or patterns, of which a few hundred images are taken evenly; None for drawn flowers.
        decoding: Options of ``load_image``.
    """
    if wanted is None:
        rng = np.random.default_rng(0)
        drawn = [
            draw_flower(DRAWN_CLASSES[i % 5], image_size=decoding["image_size"], rng=rng) for i in range(_NUM_DRAWN)
        ]
        return np.stack([np.asarray(image) for image in drawn])
    files = find_images(wanted, option="--images")
    chosen = files[:: max(1, len(files) // _NUM_DRAWN)]
    return np.stack([load_image(file, **decoding).permute(1, 2, 0).numpy() for file in chosen])


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


def disagreement(run: Run, module: nn.Module, images: NDArray[np.uint8], *, int8: bool) -> str:
    """Return how an exported file differs from what it was made of; empty where it does not differ too much.

    Args:
        run: Runs the file.
        module: What it was made of.
        images: Images ``(N, S, S, 3)``.
        int8: Whether the file is of 8 bits.
    """
    parts = np.array_split(images, max(1, len(images) // 32))
    with torch.inference_mode():
        expected = np.concatenate([module(torch.from_numpy(part)).numpy() for part in parts])
    found = np.concatenate([run(part) for part in parts])
    largest = float(np.abs(found - expected).max())
    # Where two classes are equally probable, the last digit decides, and says nothing.
    best = np.take_along_axis(expected, found.argmax(axis=1)[:, None], axis=1)[:, 0]
    agreement = float((best >= expected.max(axis=1) - (0 if int8 else _TOLERANCE)).mean())
    print(
        f"{len(images)} images: the same class for {agreement:.1%}, largest difference of a probability {largest:.2g}"
    )
    if int8:
        return "" if agreement >= _INT8_AGREEMENT else f"expected the same class for {_INT8_AGREEMENT:.0%}"
    return "" if agreement == 1 and largest <= _TOLERANCE else f"expected at most {_TOLERANCE} of a difference"


def _print_cost(file: Path, run: Run, module: nn.Module, images: NDArray[np.uint8]) -> None:
    """Print the file's size, and its latency beside PyTorch's, in interleaved runs."""

    @torch.inference_mode()
    def plain(batch: NDArray[np.uint8]) -> object:
        return module(torch.from_numpy(batch))

    print(f"{file}: {file.stat().st_size / 2**20:.1f} MiB")
    for size in (1, 32):
        batch = np.resize(images, (size, *images.shape[1:]))
        seconds: dict[str, list[float]] = {"the file": [], "PyTorch": []}
        for _ in range(8):
            for name, function in (("the file", run), ("PyTorch", plain)):
                start = time.perf_counter()
                function(batch)
                seconds[name].append(time.perf_counter() - start)
        ours, theirs = (1000 * float(np.median(times[2:])) for times in seconds.values())
        print(f"batch of {size:>2}: {ours:.1f} ms, PyTorch {theirs:.1f} ms, {theirs / ours:.2f} times as fast")
