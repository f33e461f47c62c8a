"""``python -m flowers export``: a checkpoint as a file for other programs, which has to agree with it."""

from __future__ import annotations

import json
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from flowers.checkpoint import checkpoint_file
from flowers.data import DRAWN_CLASSES, draw_flower, find_images, load_named
from flowers.deploy import (
    Classifier,
    FlowerPredictor,
    Run,
    onnx_runner,
    torch_export_runner,
    write_onnx,
    write_torch_export,
)
from flowers.run_folder import check_new, publish, scratch_folder

_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
# The file and PyTorch add in another order.
_TOLERANCE = 1e-4
_NUM_IMAGES = 200


def export(
    checkpoint: str,
    *,
    format: Literal["onnx", "torch_export"] = "onnx",
    out: Path | None = None,
    images: list[str] | None = None,
) -> int:
    """Write a checkpoint as ONNX or torch.export: bytes in, calibrated probabilities out.

    The file is compared with the checkpoint; the exit status is 1 where it disagreed and was
    deleted.

    Args:
        checkpoint: Checkpoint, or a run folder as lightning_logs/version_0, whose best checkpoint
            is taken.
        format: What to write.
        out: File to write; by default best.onnx or best.pt2 beside best.ckpt.
        images: Files, folders or patterns, 200 of which are compared; by default synthetic flowers.

    Raises:
        FileExistsError: The file to write exists.
        ValueError: The checkpoint is none, an option is wrong, or a package is missing.
        OSError: A file cannot be read or written.
    """
    missing = [name for name in _PACKAGES if find_spec(name) is None] if format == "onnx" else []
    if missing:
        raise ValueError(
            f"--format onnx: {', '.join(missing)} are missing; install them: pip install -e '.[export]'"
        )
    suffix = {"onnx": ".onnx", "torch_export": ".pt2"}[format]
    file = out or checkpoint_file(checkpoint).with_suffix(suffix)
    check_new(file, option="--out")
    if file.suffix != suffix:
        raise ValueError(f"--out {file}: expected a name that ends with {suffix}")
    predictor = FlowerPredictor(checkpoint, device="cpu")
    module = Classifier(predictor.task.evaluated_net, predictor.temperature).eval()
    pixels = check_images(images, predictor.decoding)
    metadata = _metadata(predictor)
    # Nobody shall find a file that is not compared yet.
    with scratch_folder(file.parent, option="--out") as folder:
        unchecked = folder / file.name
        print(f"Exporting {checkpoint} as {format} ...", flush=True)
        if format == "onnx":
            write_onnx(module, pixels, unchecked, metadata=metadata)
            run = onnx_runner(unchecked)
        else:
            write_torch_export(module, pixels, unchecked, metadata=metadata)
            run = torch_export_runner(unchecked)
        print(f"Comparing the file with the checkpoint on {len(pixels)} images ...", flush=True)
        if difference := disagreement(run, module, pixels):
            print(f"{file} is deleted, it disagrees with the checkpoint: {difference}")
            return 1
        [file] = publish({unchecked: file})
    _print_cost(file, run, module, pixels)
    return 0


def _metadata(predictor: FlowerPredictor) -> dict[str, str]:
    """Return what a file says of itself: all that the one who feeds it has to know."""
    size = predictor.decoding["image_size"]
    return {
        "class_names": json.dumps(predictor.class_names),
        **{name: str(value) for name, value in predictor.decoding.items()},
        "input": f"images: sRGB bytes (N, {size}, {size}, 3)",
        "output": "probabilities: (N, K), with the temperature applied; below the rejection_threshold give no answer",
        "preprocessing": "decode_image of flowers/decoding.py, with the options given here",
        "rejection_threshold": str(predictor.threshold),
    }


def check_images(photos: list[str] | None, decoding: dict[str, Any]) -> NDArray[np.uint8]:
    """Return the images ``(N, S, S, 3)`` on which an exported file is compared.

    Args:
        photos: Files, folders or patterns, of which 200 images are taken evenly; None for synthetic
            flowers.
        decoding: How images are decoded, options of ``load_image``.
    """
    if photos is None:
        rng = np.random.default_rng(0)
        names = [DRAWN_CLASSES[i % len(DRAWN_CLASSES)] for i in range(_NUM_IMAGES)]
        return np.stack(
            [
                np.asarray(draw_flower(name, image_size=decoding["image_size"], rng=rng))
                for name in names
            ]
        )
    files, _ = find_images(photos, option="--images")
    chosen = [
        files[i] for i in np.unique(np.linspace(0, len(files) - 1, num=_NUM_IMAGES).astype(int))
    ]
    return np.stack(
        [load_named(Path(file), **decoding).permute(1, 2, 0).numpy() for file in chosen]
    )


def disagreement(run: Run, module: nn.Module, images: NDArray[np.uint8]) -> str:
    """Return how an exported file differs from what it was made of; empty where it does not differ too much.

    Args:
        run: Runs the file.
        module: What it was made of.
        images: Images ``(N, S, S, 3)``.
    """
    parts = np.array_split(images, max(1, len(images) // 32))
    with torch.inference_mode():
        expected = np.concatenate([module(torch.from_numpy(part)).numpy() for part in parts])
    probs = np.concatenate([run(part) for part in parts])
    largest = float(np.abs(probs - expected).max())
    # Where two classes are equally probable, the last digit decides, and says nothing.
    prob_of_predicted = np.take_along_axis(expected, probs.argmax(axis=1)[:, None], axis=1)[:, 0]
    agreement = float((prob_of_predicted >= expected.max(axis=1) - _TOLERANCE).mean())
    print(
        f"{len(images)} images: the same class for {agreement:.1%}, largest difference of a probability {largest:.2g}"
    )
    return (
        ""
        if agreement == 1 and largest <= _TOLERANCE
        else f"expected at most {_TOLERANCE} of a difference"
    )


def _print_cost(file: Path, run: Run, module: nn.Module, images: NDArray[np.uint8]) -> None:
    """Print the file's size, and its latency beside PyTorch's, in interleaved runs."""

    @torch.inference_mode()
    def plain(batch: NDArray[np.uint8]) -> object:
        return module(torch.from_numpy(batch))

    print(f"{file}: {file.stat().st_size / 2**20:.1f} MiB")
    for size in (1, 32):
        batch = np.resize(images, (size, *images.shape[1:]))
        seconds: dict[str, list[float]] = {"the file": [], "PyTorch": []}
        for _ in range(20):
            for name, function in (("the file", run), ("PyTorch", plain)):
                start = time.perf_counter()
                function(batch)
                seconds[name].append(time.perf_counter() - start)
        ours, theirs = (
            1000 * min(times) for times in seconds.values()
        )  # the rest is what else the machine did
        print(
            f"batch of {size:>2}: {ours:.1f} ms, PyTorch {theirs:.1f} ms, {theirs / ours:.1f} times as fast"
        )
