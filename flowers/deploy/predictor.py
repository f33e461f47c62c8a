"""Classify images with a checkpoint; no other file is needed."""

import io
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, get_args, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from flowers import tasks
from flowers.checkpoint import checkpoint_file, limit_network, read_checkpoint
from flowers.data import load_image, to_float
from flowers.models import Views
from flowers.runtime import num_allowed_cores
from flowers.tasks import Classification, ClassificationTask, classify, expect

# Types of an image to classify.
ImageLike = str | Path | bytes | Image.Image | NDArray[np.uint8]


class FlowerPredictor:
    """Classifies images with a checkpoint, as the command ``predict`` does.

    Args:
        checkpoint: The file, or a run folder such as ``lightning_logs/version_0``, whose
            ``best.ckpt`` is used.
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda`` or ``cuda:<n>``.
        batch_size: Number of images that the network classifies together.
        tta: Test-time augmentation, ``none``, ``flip`` or ``flip+crops``; by default that of the
            checkpoint.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not a checkpoint of the project, or is damaged; or an argument is
            invalid, such as a device that this machine lacks.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        *,
        device: str = "auto",
        batch_size: int = 32,
        tta: Views | None = None,
    ) -> None:
        checkpoint = checkpoint_file(checkpoint)
        content = read_checkpoint(checkpoint)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self.device = torch.device(device)
            torch.zeros(1, device=self.device)
        except (RuntimeError, AssertionError) as error:  # torch has no such device
            raise ValueError(
                f"`device` {device}: expected auto, cpu or a GPU of this machine, such as cuda:0"
            ) from error
        expect(batch_size >= 1, "batch_size", "1 or more", batch_size)
        expect(tta in (None, *get_args(Views)), "tta", f"one of {', '.join(get_args(Views))}", tta)
        self.batch_size = batch_size
        try:
            with limit_network(checkpoint):
                self.task = _restore_task(content).to(self.device).eval()
            stored = content["FlowersDataModule"]
            names = ("image_size", "resize", "interpolation")
            self.decoding = {name: stored[name] for name in names}
            calibration = self.task.calibration or {}
            self.temperature = float(calibration.get("temperature", 1.0))
            self.threshold = float(calibration.get("threshold", 0.0))
        except Exception as error:  # invalid values raise errors of any kind
            reason = str(error).partition("\n")[0]
            raise ValueError(
                f"{checkpoint}: expected a checkpoint of this project, {reason}"
            ) from error
        self.task.tta = tta or self.task.tta
        self.class_names = list(self.task.class_names)

    @overload
    def __call__(self, images: ImageLike) -> Classification: ...

    @overload
    def __call__(self, images: list[Any]) -> list[Classification]: ...

    def __call__(self, images: ImageLike | list[Any]) -> Classification | list[Classification]:
        """Classify an image or a list of images.

        Args:
            images: A path, the bytes of an image file, a PIL image, an array of bytes ``(H, W, 3)``
                or ``(H, W)``, or a list of images.

        Raises:
            OSError: A file cannot be read or decoded.
            TypeError: An image is of another type.
        """
        if not isinstance(images, list):
            return self([images])[0]
        classifications = []
        for result in self.stream(images):
            if isinstance(result, OSError):
                raise result
            classifications.append(result)
        return classifications

    def stream(self, images: Iterable[ImageLike]) -> Iterator[Classification | OSError]:
        """Yield, in the order of the images, a classification or the error raised while reading.

        All cores decode a batch while the network classifies the previous one. Memory holds two
        batches.

        Args:
            images: Images of the types that a call accepts.

        Raises:
            TypeError: An image is of another type.
        """
        rest = iter(images)
        with ThreadPoolExecutor(num_allowed_cores()) as pool:
            before: list[Future[tuple[str, Tensor | OSError]]] = []
            while (batch := [*islice(rest, self.batch_size)]) or before:
                for image in batch:
                    if isinstance(image, Image.Image):
                        image.load()  # here, since two threads may get the same image
                waiting = [pool.submit(self._decode, image) for image in batch]
                yield from self._classify([future.result() for future in before])
                before = waiting

    def _classify(
        self, decoded: Sequence[tuple[str, Tensor | OSError]]
    ) -> Iterator[Classification | OSError]:
        images = [image for _, image in decoded if isinstance(image, Tensor)]
        rows: Iterator[list[float]] = iter([])
        if images:
            rows = iter(self.probs(torch.stack(images)).tolist())
        for path, image in decoded:
            if isinstance(image, OSError):
                yield image
            else:
                yield classify(next(rows), self.class_names, threshold=self.threshold, path=path)

    @torch.inference_mode()
    def probs(self, pixels: Tensor) -> Tensor:
        """Return calibrated probabilities ``(B, K)`` of decoded uint8 images ``(B, 3, S, S)``."""
        images = to_float(pixels.to(self.device)).contiguous(memory_format=torch.channels_last)
        logits = self.task(images).float().cpu().double()
        return (logits / self.temperature).softmax(dim=1)

    def _decode(self, image: ImageLike) -> tuple[str, Tensor | OSError]:
        """Return the path of an image, and its pixels or the error raised while reading it."""
        path = str(image) if isinstance(image, str | Path) else ""
        name = f"{path}: " if path else ""
        try:
            return path, load_image(_as_file(image), **self.decoding)
        except MemoryError:
            return path, OSError(f"{name}not enough memory to decode the image")
        except OSError as error:
            # A new error: the traceback of the original would keep the image in memory.
            return path, type(error)(f"{name}{error.strerror or error}")


def _as_file(image: ImageLike) -> str | Path | io.BytesIO | Image.Image:
    """Return an image as a type that ``load_image`` accepts, so that all are decoded alike."""
    if isinstance(image, np.ndarray) and image.dtype == np.uint8:
        return Image.fromarray(image)
    if isinstance(image, bytes):
        return io.BytesIO(image)
    if isinstance(image, str | Path | Image.Image):
        return image
    kind = f"array of {image.dtype}" if isinstance(image, np.ndarray) else type(image).__name__
    raise TypeError(f"expected a path, bytes, a PIL image or an array of bytes, got {kind}")


def _restore_task(checkpoint: dict[str, Any]) -> ClassificationTask:
    """Construct the task of a checkpoint and load its weights, without a download.

    Args:
        checkpoint: What ``read_checkpoint`` returns.

    Raises:
        ValueError: The task is not part of this package, or weights are NaN or infinite.
    """
    name = str(checkpoint["config"].get("model", {}).get("class_path", "flowers.CNNTask"))
    # Only a task of this package is used: the name in a checkpoint must not import other code.
    task_class = getattr(tasks, name.removeprefix("flowers."), None)
    if not (isinstance(task_class, type) and issubclass(task_class, ClassificationTask)):
        raise ValueError(f"with a task of this package, got {name}")
    options = checkpoint["hyper_parameters"]
    if issubclass(task_class, tasks.TransferTask):
        options["weights"] = "none"
    task: ClassificationTask = task_class(**options)
    task.load_state_dict(checkpoint["state_dict"])
    if not all(torch.isfinite(value).all() for value in task.state_dict().values()):
        raise ValueError("got weights that are NaN or infinite")
    task.calibration = checkpoint.get("calibration")
    return task
