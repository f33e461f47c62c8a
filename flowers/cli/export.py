"""``python -m flowers export``: write a checkpoint as ONNX or torch.export."""

import json
from functools import partial
from importlib.util import find_spec
from itertools import cycle, islice
from pathlib import Path
from timeit import repeat
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from flowers import deploy
from flowers.checkpoint import checkpoint_file
from flowers.data import SYNTHETIC_CLASSES, find_images, generate_flower, load_named
from flowers.run_folder import check_new, publish, scratch_folder

# Largest difference of a probability: the file and PyTorch add floats in different orders.
_TOLERANCE = 1e-4
_NUM_IMAGES = 200


def export(
    checkpoint: str,
    *,
    format: Literal["onnx", "torch_export"] = "onnx",
    out: Path | None = None,
    images: list[str] | None = None,
) -> int:
    """Write a checkpoint as ONNX or torch.export: image bytes in, calibrated probabilities out.

    The probabilities of the file are compared with the checkpoint's. If they differ by more
    than 0.0001, the file is deleted and the exit status is 1.

    Args:
        checkpoint: Checkpoint, or a run folder such as lightning_logs/version_0 for its best
            checkpoint.
        format: Format of the file.
        out: File to write; by default best.onnx or best.pt2 beside best.ckpt.
        images: Files, folders or patterns, of which up to 200 images are compared; by default 200
            synthetic flowers.

    Raises:
        FileExistsError: The file to write exists.
        ValueError: The file is not a checkpoint, an option is invalid, or a package is missing.
        OSError: A file cannot be read or written.
    """
    if format == "onnx" and not all(map(find_spec, ["onnx", "onnxruntime", "onnxscript"])):
        raise ValueError(
            "--format onnx: expected the packages onnx, onnxruntime and onnxscript: pip install "
            "-e '.[export]'. --format torch_export needs none of them"
        )
    suffix, write, runner = deploy.FORMATS[format]
    file = out or checkpoint_file(checkpoint).with_suffix(suffix)
    check_new(file)
    if file.suffix != suffix:
        raise ValueError(f"--out {file}: expected a name that ends with {suffix}")
    predictor = deploy.FlowerPredictor(checkpoint, device="cpu")
    module = deploy.Classifier(predictor.task.evaluated_net, predictor.temperature).eval()
    pixels = check_images(images, predictor.decoding)
    # The file gets its name only after the comparison.
    with scratch_folder(file.parent, option="--out") as folder:
        unchecked = folder / file.name
        print(f"Exporting {checkpoint} as {format} ...", flush=True)
        write(module, pixels, unchecked, metadata=_metadata(predictor))
        run = runner(unchecked)
        print("Comparing the file with the checkpoint ...", flush=True)
        difference = largest_difference(run, module, pixels)
        print(f"Largest difference of a probability on {len(pixels)} images: {difference:.2g}")
        if not difference <= _TOLERANCE:  # also true for NaN
            print(f"{file} is deleted: it differs from the checkpoint by more than {_TOLERANCE}")
            return 1
        [file] = publish({unchecked: file})
    _print_cost(file, run, module, pixels)
    return 0


def _metadata(predictor: deploy.FlowerPredictor) -> dict[str, str]:
    """Return the metadata of an exported file: everything that is needed to use the file."""
    size = predictor.decoding["image_size"]
    decoding = {name: str(value) for name, value in predictor.decoding.items()}
    return decoding | {
        "class_names": json.dumps(predictor.class_names),
        "input": f"images: sRGB bytes (N, {size}, {size}, 3)",
        "output": "probabilities: (N, K), after temperature scaling; reject an image whose largest "
        "probability is below confidence_threshold",
        "preprocessing": "decode_image of flowers/decoding.py, with the options given here",
        "confidence_threshold": str(predictor.threshold),
    }


def check_images(photos: list[str] | None, decoding: dict[str, Any]) -> NDArray[np.uint8]:
    """Return the images ``(N, S, S, 3)`` on which an exported file and its checkpoint are compared.

    Args:
        photos: Files, folders or patterns, of which up to 200 evenly spaced images are used; None
            for 200 synthetic flowers.
        decoding: Options of ``load_image``.
    """
    if photos is None:
        rng = np.random.default_rng(0)
        size = decoding["image_size"]
        names = islice(cycle(SYNTHETIC_CLASSES), _NUM_IMAGES)
        flowers = [generate_flower(name, image_size=size, rng=rng) for name in names]
        return np.stack(list(map(np.asarray, flowers)))
    files, _ = find_images(photos, option="--images")
    numbers = np.unique(np.linspace(0, len(files) - 1, num=_NUM_IMAGES).astype(int))
    images = [load_named(Path(files[number]), **decoding) for number in numbers]
    return torch.stack(images).permute(0, 2, 3, 1).contiguous().numpy()


def largest_difference(run: deploy.Runner, module: nn.Module, images: NDArray[np.uint8]) -> float:
    """Return the largest difference between the probabilities of an exported file and its module.

    Args:
        run: Function from images to the probabilities of the file.
        module: The exported module.
        images: Images ``(N, S, S, 3)``.
    """
    differences = []
    for part in np.array_split(images, max(1, len(images) // 32)):
        with torch.inference_mode():
            expected = module(torch.from_numpy(part)).numpy()
        differences.append(np.abs(run(part) - expected).max())
    return float(np.max(differences))


@torch.inference_mode()
def _print_cost(file: Path, run: deploy.Runner, net: nn.Module, images: NDArray[np.uint8]) -> None:
    """Print the size of the file, and the latencies of the file and of PyTorch."""
    print(f"{file}: {file.stat().st_size / 2**20:.1f} MiB")
    for size in (1, 32):
        batch = np.resize(images, (size, *images.shape[1:]))
        # The minimum is the least disturbed by other processes.
        file_ms = 1000 * min(repeat(partial(run, batch), number=1, repeat=20))
        torch_ms = 1000 * min(repeat(partial(net, torch.from_numpy(batch)), number=1, repeat=20))
        ratio = f"{torch_ms / file_ms:.1f} times as fast"
        print(f"batch of {size:>2}: {file_ms:.1f} ms, PyTorch {torch_ms:.1f} ms, {ratio}")
