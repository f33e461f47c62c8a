"""Pretrained weights: where they come from, and whether they fit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.error import URLError
from zipfile import ZipFile, is_zipfile

import torch
import torchvision.models
from filelock import FileLock
from torchvision.models import get_model_weights, list_models

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from torch import Tensor
    from torchvision.models import WeightsEnum

# What a vision transformer's position embeddings are built for here, in pixels.
VIT_SIZE = 224
# DenseNet's published files name its layers as an old torchvision did.
_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")
_SHOWN_KEYS = 3


class Preprocessing(NamedTuple):
    """What images weights were trained on.

    Args:
        image_size: Side of the images, in pixels.
        interpolation: How they were resized: ``bilinear`` or ``bicubic``.
        mean: Mean of each channel, in the unit of the images ([0, 1]).
        std: Standard deviation of each channel, in the same unit.
    """

    image_size: int
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


def named_weights(arch: str, weights: str) -> WeightsEnum:
    """Return torchvision's entry for a name; for ``none`` and for a file that of the network's default weights.

    Args:
        arch: Name of a torchvision classifier.
        weights: ``none``, a name as ``DEFAULT`` or ``IMAGENET1K_V1``, or a path that ends in
            ``.pth``, ``.pt`` or ``.ckpt``.

    Raises:
        ValueError: There is no such network, or there are no such weights.
    """
    classifiers = list_models(module=torchvision.models)
    if arch not in classifiers:
        raise ValueError(f"`arch`: expected one of {', '.join(classifiers)}, got {arch}")
    known = get_model_weights(arch)
    if weights == "none" or is_file(weights):
        return known.DEFAULT
    if weights not in known.__members__:
        names = ", ".join([*known.__members__, "none"])
        raise ValueError(
            f"`weights`: expected {names} or the path of a .pth file for {arch}, got {weights}"
        )
    return known[weights]


def is_file(weights: str) -> bool:
    """Return whether weights are named by a path."""
    return weights.endswith((".pth", ".pt", ".ckpt"))


def preprocessing(arch: str, weights: str) -> Preprocessing:
    """Return what images a network's weights were trained on.

    Args:
        arch: Name of a torchvision classifier.
        weights: As for ``named_weights``.

    Raises:
        ValueError: There is no such network, or there are no such weights.
    """
    preset = named_weights(arch, weights).transforms()
    # A vision transformer is built for images of one size.
    size = VIT_SIZE if arch.startswith("vit_") else int(preset.crop_size[0])
    return Preprocessing(
        size, str(preset.interpolation.value), tuple(preset.mean), tuple(preset.std)
    )


def read_weights(arch: str, weights: str) -> dict[str, Tensor]:
    """Return the state dict of pretrained weights, downloaded into torch's hub folder where it is missing.

    Args:
        arch: Name of a torchvision classifier.
        weights: A name or a path, as for ``named_weights``.

    Raises:
        FileNotFoundError: The file is missing.
        OSError: The download fails; the message names the file, its URL and where to put it.
        ValueError: There are no such weights, or the file holds none.
    """
    file = Path(weights).expanduser() if is_file(weights) else _download(arch, weights)
    if not file.is_file():
        raise FileNotFoundError(f"`weights` {weights}: expected a file of weights, there is none")
    try:
        if is_zipfile(file):
            with ZipFile(file) as archive:
                if (
                    archive.testzip() is not None
                ):  # the archive's CRC-32, which torch does not verify
                    raise ValueError("a damaged file")
        content = torch.load(file, map_location="cpu", weights_only=True)
        for wrapper in ("state_dict", "model"):  # as torchvision's references and others write them
            content = content.get(wrapper, content)
        state = {_renamed(str(key)): value for key, value in content.items()}
        if not all(isinstance(value, torch.Tensor) for value in state.values()):
            raise TypeError("values that are no tensors")
    except Exception as error:  # whatever another file leads torch to
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"`weights` {file}: expected a state dict of {arch}, got {reason}"
        ) from error
    return state


def _download(arch: str, weights: str) -> Path:
    url: str = named_weights(arch, weights).url
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    digest = re.search(r"-([0-9a-f]{8,})\.", file.name)
    try:
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{file}.lock"):
                if not file.exists():
                    torch.hub.download_url_to_file(url, str(file), digest[1] if digest else None)
    except (URLError, OSError, RuntimeError) as error:
        raise OSError(
            f"`weights` {weights}: the weights of {arch} cannot be downloaded ({error}). Fetch {url} on a "
            f"machine with a network and put it at {file}, or give the file itself (`weights` "
            f"path/to/{file.name}), or train from scratch (`weights` none)."
        ) from error
    return file


def _renamed(key: str) -> str:
    """Return a key as torchvision's networks have it today."""
    return _DENSENET.sub(
        r"\1\2.", key.removeprefix("net.backbone.")
    )  # which a checkpoint of this project puts before


def check_keys(
    given: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    *,
    extra: Collection[str],
    source: str,
) -> dict[str, Tensor]:
    """Return the given tensors that are wanted.

    Args:
        given: The state dict that was read.
        wanted: The state dict it is for.
        extra: Beginnings of keys that may be given in vain: heads.
        source: What to call the weights in an error.

    Raises:
        ValueError: Keys or shapes differ; the first ones are named.
    """
    used = {
        key: value
        for key, value in given.items()
        if key in wanted or not key.startswith(tuple(extra))
    }
    # Files from before torch 0.4.1 lack the count of batches, which only a momentum of None would
    # use.
    missing = [key for key in wanted if key not in used and not key.endswith("num_batches_tracked")]
    surplus = [key for key in used if key not in wanted]
    shapes = [
        f"{key} {tuple(used[key].shape)} instead of {tuple(value.shape)}"
        for key, value in wanted.items()
        if key in used and used[key].shape != value.shape
    ]
    problems = {"missing": missing, "not in the network": surplus, "of another shape": shapes}
    said = [
        f"{len(keys)} {name} ({', '.join(keys[:_SHOWN_KEYS])}{', ...' if len(keys) > _SHOWN_KEYS else ''})"
        for name, keys in problems.items()
        if keys
    ]
    if said:
        raise ValueError(
            f"{source}: expected the weights of this network, got those of another; keys: {'; '.join(said)}"
        )
    return used
