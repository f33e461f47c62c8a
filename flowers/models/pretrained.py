"""Classifiers of torchvision and timm with pretrained weights and a new head."""

import hashlib
import re
from contextlib import suppress
from pathlib import Path
from textwrap import shorten
from typing import NamedTuple

import torch
import torchvision.models
from filelock import FileLock
from torch import Tensor, nn
from torchvision.models import WeightsEnum, get_model, get_model_weights, list_models

from flowers.checkpoint import load_weights
from flowers.models.classifier import ImageClassifier, Standardize
from flowers.models.timm_networks import TIMM, timm_config, timm_network, timm_weights

# The position embeddings of a vision transformer fit only one image size, usually 224 pixels.
_VIT_SIZE = 224
# Auxiliary heads of GoogLeNet and Inception help only when training from scratch. The networks were
# trained with mean and standard deviation 0.5; `transform_input` converts from ImageNet's.
_INCEPTION_OPTIONS = {"aux_logits": False, "transform_input": True, "init_weights": True}
_OPTIONS = dict.fromkeys(("googlenet", "inception_v3"), _INCEPTION_OPTIONS)
_AUXILIARY_HEADS = ("AuxLogits.", "aux1.", "aux2.")
# DenseNet's published weights have the layer names of an old version of torchvision.
_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")
# Names of torchvision's weight files end with a prefix of the SHA-256; digits alone are a date.
_SHA256 = re.compile(r".+-(?!\d+\.)([0-9a-f]{8,10})\.pth")
# Prefixes of a network's keys in the state dict of this project's checkpoints.
_BACKBONE = "net.backbone."
_HEAD = "net.head."


class Preprocessing(NamedTuple):
    """Size, interpolation and normalisation of the images that weights were trained on.

    Args:
        image_size: Side of the images, in pixels.
        interpolation: Interpolation of the resizing, ``bilinear`` or ``bicubic``.
        mean: Mean of each channel, for pixel values in [0, 1].
        std: Standard deviation of each channel, for pixel values in [0, 1].
    """

    image_size: int
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


def preprocessing(arch: str, weights: str) -> Preprocessing:
    """Return the preprocessing of the images that a network's weights were trained on.

    Args:
        arch: Name of a classifier of torchvision, or ``timm/`` and the name of one of timm.
        weights: As for ``pretrained``; ``none`` and files have the preprocessing of ``DEFAULT``.

    Raises:
        ValueError: The network or the weights are unknown.
    """
    if arch.startswith(TIMM):
        config = timm_config(arch)
        _check_name(weights, ["DEFAULT"], network=arch)
        return Preprocessing(config.input_size[1], config.interpolation, config.mean, config.std)
    preset = _weights_entry(arch, weights).transforms()
    size = _VIT_SIZE if arch.startswith("vit_") else preset.crop_size[0]
    return Preprocessing(size, preset.interpolation.value, tuple(preset.mean), tuple(preset.std))


def pretrained(
    arch: str, num_classes: int, *, weights: str = "DEFAULT", dropout: float = 0.0
) -> ImageClassifier:
    """Return a network of torchvision or timm with a new last layer for ``num_classes`` classes.

    The backbone is the network without its last layer; it returns features ``(B, F)``.

    Args:
        arch: Any name of ``torchvision.models.list_models(module=torchvision.models)``, or
            ``timm/`` and a name of ``timm.list_models()``.
        num_classes: Number of logits.
        weights: ``none`` (random weights), ``DEFAULT``, another of torchvision's names such as
            ``IMAGENET1K_V1``, or a path. A ``.pth`` or ``.pt`` file is a state dict, with or
            without the last layer. A ``.ckpt`` file is a checkpoint of this project, whose head is
            used too if it has ``num_classes`` logits.
        dropout: Probability that a feature is dropped before the new layer.

    Raises:
        ValueError: The network or the weights are unknown, or the weights belong to another
            network.
        OSError: The weights cannot be read or downloaded.
    """
    preset = preprocessing(arch, weights)
    if arch.startswith(TIMM):
        net = timm_network(arch, num_classes=0)
        num_features = net.head_hidden_size
        last_layer = str(timm_config(arch).classifier)
    else:
        net, num_features, last_layer = _torchvision_backbone(arch)
    head = nn.Sequential(nn.Dropout(dropout), nn.Linear(num_features, num_classes))
    if weights != "none":
        state = _read_weights(arch, weights)
        unused = (f"{last_layer}.", *_AUXILIARY_HEADS, "net.")
        expected = net.state_dict().keys()
        used = {key: state[key] for key in state if key in expected or not key.startswith(unused)}
        try:
            net.load_state_dict(used)
        except RuntimeError as error:
            # torch's error lists all keys, often hundreds.
            keys = shorten(", ".join(used), 60, placeholder=" ...")
            reason = shorten(str(error), 300, placeholder=" ...")
            raise ValueError(
                f"`weights` {weights}: expected the weights of {arch}, got {keys}: {reason}"
            ) from error
        stored = {key.removeprefix(_HEAD): state[key] for key in state if key.startswith(_HEAD)}
        with suppress(RuntimeError):  # no head is stored, or its number of classes differs
            head.load_state_dict(stored)
    return ImageClassifier(Standardize(preset.mean, preset.std), net, head)


def _torchvision_backbone(arch: str) -> tuple[nn.Module, int, str]:
    """Return a network without its last layer, and that layer's number of inputs and name."""
    net: nn.Module = get_model(arch, weights=None, **_OPTIONS.get(arch, {}))
    layers = []
    for name, module in net.named_modules():
        if isinstance(module, nn.Dropout) or list(module.parameters(recurse=False)):
            layers.append((name, module))
    (_, layer_before), (last_layer, old_layer) = layers[-2:]
    if isinstance(layer_before, nn.Dropout):
        layer_before.p = 0.0  # the new head has a dropout of its own
    assert isinstance(old_layer, nn.Linear | nn.Conv2d)
    net.set_submodule(last_layer, nn.Identity())
    return net, old_layer.weight.shape[1], last_layer


def _weights_entry(arch: str, weights: str) -> WeightsEnum:
    """Return torchvision's entry of named weights; for ``none`` and files the default entry."""
    classifiers = list_models(module=torchvision.models)
    if arch not in classifiers:
        raise ValueError(f"`arch`: expected one of {', '.join(classifiers)}, got {arch}")
    entries = get_model_weights(arch)
    names = [*entries.__members__]
    network = arch
    if arch.startswith("vit_"):
        names = [name for name in names if entries[name].meta["min_size"] == (_VIT_SIZE, _VIT_SIZE)]
        network = f"{arch} and images of {_VIT_SIZE} pixels"
    _check_name(weights, names, network=network)
    return entries.__members__.get(weights, entries.DEFAULT)


def _check_name(weights: str, names: list[str], *, network: str) -> None:
    if weights not in (*names, "none") and not _is_file(weights):
        raise ValueError(
            f"`weights`: expected {', '.join(names)}, none or the path of a .pth file for "
            f"{network}, got {weights}"
        )


def _is_file(weights: str) -> bool:
    return weights.endswith((".pth", ".pt", ".ckpt"))


def _read_weights(arch: str, weights: str) -> dict[str, Tensor]:
    """Return the state dict of pretrained weights, downloaded into torch's hub folder if missing.

    Raises:
        FileNotFoundError: The file is missing.
        OSError: The download fails; the message names the file, its URL and where to put it.
        ValueError: The weights are unknown, or the file is not a state dict.
    """
    if arch.startswith(TIMM) and not _is_file(weights):
        return timm_weights(arch)
    file = Path(weights).expanduser() if _is_file(weights) else _download(arch, weights)
    if not file.is_file():
        raise FileNotFoundError(f"`weights` {weights}: no such file")
    try:
        return _load_state(file)
    except Exception as error:  # torch.load raises errors of any kind
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"`weights` {file}: expected a state dict of {arch}, got {reason}"
        ) from error


def _sha256_prefix(name: str) -> str:
    """Return the SHA-256 prefix in a file name of torch's hub, or an empty string without one."""
    match = _SHA256.fullmatch(name)
    return match[1] if match else ""


def _load_state(file: Path) -> dict[str, Tensor]:
    """Check a file's SHA-256 against the prefix in its name, and return the file's tensors."""
    prefix = _sha256_prefix(file.name)
    with file.open("rb") as opened:
        if prefix and not hashlib.file_digest(opened, "sha256").hexdigest().startswith(prefix):
            raise ValueError(
                f"a file whose SHA-256 does not begin with {prefix}, the checksum in its name. "
                f"Download the file again, or rename it if {prefix} is not a checksum"
            )
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
            f"{url} on a machine with internet access and save it as {file}, or give its path "
            f"(`weights` path/to/{file.name}), or train from scratch (`weights` none)."
        ) from error
    return file
