"""Classifiers of torchvision and timm with pretrained weights and a new head."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, NamedTuple

import torch
import torchvision.models
from filelock import FileLock
from torch import nn
from torchvision.models import get_model, get_model_weights, list_models

from flowers.checkpoint import load_weights
from flowers.models.classifier import ImageClassifier, Standardize
from flowers.models.timm_networks import TIMM, timm_config, timm_network, timm_weights

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor
    from torchvision.models import WeightsEnum

_IMAGENET_CLASSES = 1000
# Position embeddings of a vision transformer belong to one image size, usually 224 pixels.
_VIT_SIZE = 224
# The auxiliary heads of these networks help only when training from scratch. `transform_input`
# converts images standardized by ImageNet's mean to the inputs that the weights expect.
_INCEPTION_OPTIONS = {"aux_logits": False, "transform_input": True, "init_weights": True}
_INCEPTIONS = {"googlenet", "inception_v3"}
_AUXILIARY_HEADS = ("AuxLogits.", "aux1.", "aux2.")
# DenseNet's published files have the layer names of an old torchvision.
_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")
# A checkpoint of this project stores a network under these prefixes.
_BACKBONE = "net.backbone."
_HEAD = "net.head."
# Characters of an error about keys of the state dict.
_MAX_KEYS = 60
_MAX_ERROR = 300


class Preprocessing(NamedTuple):
    """The images that weights were trained on.

    Args:
        image_size: Side of the images, in pixels.
        interpolation: Interpolation of the resizing, ``bilinear`` or ``bicubic``.
        mean: Mean of each channel, in the unit of the images ([0, 1]).
        std: Standard deviation of each channel, in the same unit.
    """

    image_size: int
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


def preprocessing(arch: str, weights: str) -> Preprocessing:
    """Return the preprocessing of the images that a network's weights were trained on.

    Args:
        arch: Name of a classifier of torchvision, or of timm after ``timm/``.
        weights: As for ``pretrained``; for ``none`` and files, that of the default weights.

    Raises:
        ValueError: There is no such network, or there are no such weights.
    """
    if arch.startswith(TIMM):
        _check_timm_weights(weights)
        config = timm_config(arch)
        size = config["input_size"][1]
        return Preprocessing(size, config["interpolation"], config["mean"], config["std"])
    preset = _weights_entry(arch, weights).transforms()
    image_size = int(preset.crop_size[0])
    if arch.startswith("vit_"):
        image_size = _VIT_SIZE
    interpolation = str(preset.interpolation.value)
    return Preprocessing(image_size, interpolation, tuple(preset.mean), tuple(preset.std))


def pretrained(
    arch: str, num_classes: int, *, weights: str = "DEFAULT", dropout: float = 0.0
) -> ImageClassifier:
    """Return a classifier whose last layer is replaced by one for ``num_classes``.

    The backbone is the network without its last layer; it returns features ``(B, F)``.

    Args:
        arch: Any name of ``torchvision.models.list_models(module=torchvision.models)``, or of
            ``timm.list_models()`` after ``timm/``.
        num_classes: Number of logits.
        weights: ``none`` (random weights), ``DEFAULT``, another name of torchvision's such as
            ``IMAGENET1K_V1``, or a path. A path that ends in ``.pth`` or ``.pt`` is a state dict,
            with or without the last layer. One that ends in ``.ckpt`` is a checkpoint of this
            project; its head is used too if it has as many classes.
        dropout: Probability that a feature is dropped before the new layer.

    Raises:
        ValueError: There is no such network, there are no such weights, or they belong to another
            network.
        OSError: The weights cannot be read or downloaded.
    """
    preset = preprocessing(arch, weights)
    if arch.startswith(TIMM):
        net = timm_network(arch, num_classes=0)
        num_features = net.head_hidden_size
        last_layer = str(timm_config(arch)["classifier"])
    else:
        net, num_features, last_layer = _torchvision_backbone(arch, weights)
    head = nn.Sequential(nn.Dropout(dropout), nn.Linear(num_features, num_classes))
    if weights != "none":
        state = _read_weights(arch, weights)
        unused = (f"{last_layer}.", *_AUXILIARY_HEADS, "net.")
        expected = net.state_dict().keys()
        used = {key: state[key] for key in state if key in expected or not key.startswith(unused)}
        try:
            net.load_state_dict(used)
        except RuntimeError as error:
            keys = shorten(", ".join(used), _MAX_KEYS, placeholder=" ...")
            reason = shorten(str(error), _MAX_ERROR, placeholder=" ...")
            raise ValueError(
                f"`weights` {weights}: expected the weights of {arch}, got {keys}: {reason}"
            ) from error
        _load_head(head, state)
    return ImageClassifier(Standardize(preset.mean, preset.std), net, head)


def _torchvision_backbone(arch: str, weights: str) -> tuple[nn.Module, int, str]:
    """Return a network without its last layer, its number of features, and that layer's name."""
    net = _build(arch, weights)
    last_layer = _last_layer(net)
    _disable_dropout_before(net, last_layer)
    old_layer = net.get_submodule(last_layer)
    assert isinstance(old_layer, nn.Linear | nn.Conv2d)
    net.set_submodule(last_layer, nn.Identity())
    return net, old_layer.weight.shape[1], last_layer


def _build(arch: str, weights: str) -> nn.Module:
    entry = _weights_entry(arch, weights)
    size = (_VIT_SIZE, _VIT_SIZE)
    is_named = weights in type(entry).__members__
    if arch.startswith("vit_") and is_named and entry.meta["min_size"] != size:
        names = [other.name for other in type(entry) if other.meta["min_size"] == size]
        raise ValueError(
            f"`weights` {weights}: expected weights for images of {_VIT_SIZE} pixels, as "
            f"{', '.join(names)}, got some for {entry.meta['min_size'][0]}"
        )
    options = _INCEPTION_OPTIONS if arch in _INCEPTIONS else {}
    net: nn.Module = get_model(arch, weights=None, **options)
    return net


def _last_layer(net: nn.Module) -> str:
    """Return the name of the last linear layer, or 1x1 convolution, with 1,000 outputs."""
    last = ""
    for name, module in net.named_modules():
        is_linear = isinstance(module, nn.Linear)
        is_pointwise = isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1)
        if (is_linear or is_pointwise) and len(module.weight) == _IMAGENET_CLASSES:
            last = name
    return last


def _disable_dropout_before(net: nn.Module, last_layer: str) -> None:
    """Disable the dropout right before the last layer; the new head has its own."""
    dropout = None
    for name, module in net.named_modules():
        if name == last_layer:
            break
        if isinstance(module, nn.Dropout):
            dropout = module
        elif list(module.parameters(recurse=False)):
            dropout = None
    if dropout is not None:
        dropout.p = 0.0


def _load_head(head: nn.Sequential, state: Mapping[str, Tensor]) -> None:
    """Load the head of a checkpoint of this project if its shapes match."""
    stored = {key.removeprefix(_HEAD): state[key] for key in state if key.startswith(_HEAD)}
    if _shapes(stored) == _shapes(head.state_dict()):
        head.load_state_dict(stored)


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in state.items()}


def _weights_entry(arch: str, weights: str) -> WeightsEnum:
    """Return torchvision's entry of named weights; the default entry for ``none`` and files."""
    classifiers = list_models(module=torchvision.models)
    if arch not in classifiers:
        raise ValueError(f"`arch`: expected one of {', '.join(classifiers)}, got {arch}")
    entries = get_model_weights(arch)
    if weights == "none" or _is_file(weights):
        return entries.DEFAULT
    if weights not in entries.__members__:
        names = ", ".join([*entries.__members__, "none"])
        raise ValueError(
            f"`weights`: expected {names} or the path of a .pth file for {arch}, got {weights}"
        )
    return entries[weights]


def _check_timm_weights(weights: str) -> None:
    if weights not in ("DEFAULT", "none") and not _is_file(weights):
        raise ValueError(
            f"`weights`: expected DEFAULT, none or the path of a .pth file for a network of timm, "
            f"got {weights}"
        )


def _is_file(weights: str) -> bool:
    return weights.endswith((".pth", ".pt", ".ckpt"))


def _read_weights(arch: str, weights: str) -> dict[str, Tensor]:
    """Return the state dict of pretrained weights, downloaded into torch's hub folder if missing.

    Raises:
        FileNotFoundError: The file is missing.
        OSError: The download fails; the message names the file, its URL and where to put it.
        ValueError: There are no such weights, or the file is not a state dict.
    """
    if arch.startswith(TIMM) and not _is_file(weights):
        return timm_weights(arch)
    file = Path(weights).expanduser() if _is_file(weights) else _download(arch, weights)
    if not file.is_file():
        raise FileNotFoundError(f"`weights` {weights}: no such file")
    try:
        _check_sha256(file)
        return _load_state(file)
    except Exception as error:  # torch.load raises errors of any kind
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"`weights` {file}: expected a state dict of {arch}, got {reason}"
        ) from error


def _sha256_prefix(name: str) -> str:
    """Return the part of its SHA-256 in the name of a file of torch's hub; empty without one."""
    match = re.fullmatch(r".+-([0-9a-f]{8,10})\.pth", name)
    if match is None or match[1].isdigit():  # a date
        return ""
    return match[1]


def _check_sha256(file: Path) -> None:
    prefix = _sha256_prefix(file.name)
    with file.open("rb") as opened:
        if prefix and not hashlib.file_digest(opened, "sha256").hexdigest().startswith(prefix):
            raise ValueError(
                f"a file whose SHA-256 does not begin with {prefix} as its name says. Download it "
                "again, or rename it if that is no checksum"
            )


def _load_state(file: Path) -> dict[str, Tensor]:
    content = load_weights(file)
    for wrapper in ("state_dict", "model"):  # keys of Lightning's and torchvision's checkpoints
        content = content.get(wrapper, content)
    state = {}
    for key, value in content.items():
        if not isinstance(value, torch.Tensor):
            raise TypeError("values that are not tensors")
        state[_DENSENET.sub(r"\1\2.", str(key).removeprefix(_BACKBONE))] = value
    return state


def _download(arch: str, weights: str) -> Path:
    url: str = _weights_entry(arch, weights).url
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    try:
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{file}.lock"):
                if not file.exists():
                    torch.hub.download_url_to_file(url, str(file), _sha256_prefix(file.name))
    except (OSError, RuntimeError) as error:
        raise OSError(
            f"`weights` {weights}: the weights of {arch} cannot be downloaded ({error}). Fetch "
            f"{url} on a machine with a network and put it at {file}, or give the file itself "
            f"(`weights` path/to/{file.name}), or train from scratch (`weights` none)."
        ) from error
    return file
