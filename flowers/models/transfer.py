"""Any torchvision classifier as a backbone under a new head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torchvision.models
from torch import nn
from torchvision.models import get_model, list_models

from flowers.models.classifier import ImageClassifier
from flowers.models.layers import Standardize
from flowers.models.weights import check_keys, named_weights, preprocessing, read_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

_IMAGENET_CLASSES = 1000
# Their auxiliary heads help a training from scratch only. Their published weights expect inputs scaled in a way of
# their own, which `transform_input` makes of ImageNet's mean and standard deviation.
_INCEPTIONS = {"googlenet", "inception_v3"}


def pretrained(arch: str, num_classes: int, *, weights: str = "DEFAULT", dropout: float = 0.0) -> ImageClassifier:
    """Return a torchvision classifier whose last layer is replaced by a new one for ``num_classes``.

    The backbone is the whole network but for that layer, so it ends in features ``(B, F)``.

    Args:
        arch: Any name of ``torchvision.models.list_models(module=torchvision.models)``.
        num_classes: Number of logits.
        weights: ``none`` (random), a name of torchvision's as ``DEFAULT`` or ``IMAGENET1K_V1``, or the path of a state
            dict that ends in ``.pth`` or ``.pt``; one without the last layer will do.
        dropout: Probability that a feature is dropped before the new layer.

    Raises:
        ValueError: There is no such network, there are no such weights, or they belong to another network.
        OSError: The weights cannot be read or downloaded.
    """
    net, head, aux = _build(arch, weights)
    layer = net.get_submodule(head)
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    num_features = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
    net.set_submodule(head, nn.Identity())
    if weights != "none":
        state = read_weights(arch, weights)
        source = f"--model.weights {weights} for {arch}"
        net.load_state_dict(
            check_keys(state, net.state_dict(), extra=[f"{name}." for name in (head, *aux)], source=source)
        )
    wanted = preprocessing(arch, weights)
    new_head = nn.Sequential(nn.Dropout(dropout), nn.Linear(num_features, num_classes))
    return ImageClassifier(Standardize(wanted.mean, wanted.std), net, new_head)


def _build(arch: str, weights: str) -> tuple[nn.Module, str, Sequence[str]]:
    """Return a network with random weights, the name of its last layer, and those of its auxiliary heads."""
    known = list_models(module=torchvision.models)
    if arch not in known:
        raise ValueError(f"--model.arch: expected one of {', '.join(known)}, got {arch}")
    options: dict[str, Any] = {}
    if arch in _INCEPTIONS:
        options = {"aux_logits": False, "transform_input": True, "init_weights": True}
    entry = named_weights(arch, weights)
    if arch.startswith("vit_") and entry is not None and entry.meta["min_size"] != (224, 224) and weights != "none":
        raise ValueError(
            f"--model.weights {weights}: they are for images of {entry.meta['min_size'][0]} pixels, the {arch} here "
            f"takes 224; expected weights for 224 pixels, as IMAGENET1K_V1 or IMAGENET1K_SWAG_LINEAR_V1"
        )
    net: nn.Module = get_model(arch, weights=None, **options)
    sizes = {name: _num_outputs(module) for name, module in net.named_modules()}
    return net, [name for name, size in sizes.items() if size == _IMAGENET_CLASSES][-1], ("AuxLogits", "aux1", "aux2")


def _num_outputs(module: nn.Module) -> int:
    """Return the outputs of a dense layer, or of a 1x1 convolution, as SqueezeNet ends in; 0 of any other module."""
    if isinstance(module, nn.Linear):
        return module.out_features
    return module.out_channels if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) else 0
