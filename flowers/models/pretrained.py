"""Any torchvision classifier as a backbone under a new head."""

from __future__ import annotations

from torch import nn
from torchvision.models import get_model

from flowers.models.classifier import ImageClassifier, Standardize
from flowers.models.weights import VIT_SIZE, check_keys, named_weights, preprocessing, read_weights

_IMAGENET_CLASSES = 1000
# Their auxiliary heads help a training from scratch only. Their published weights expect inputs
# scaled in a way of their own, which `transform_input` makes of ImageNet's mean and standard
# deviation.
_INCEPTIONS = {"googlenet", "inception_v3"}
_AUXILIARY = ("AuxLogits", "aux1", "aux2")


def pretrained(
    arch: str, num_classes: int, *, weights: str = "DEFAULT", dropout: float = 0.0
) -> ImageClassifier:
    """Return a torchvision classifier whose last layer is replaced by a new one for ``num_classes``.

    The backbone is the whole network but for that layer, so it ends in features ``(B, F)``.

    Args:
        arch: Any name of ``torchvision.models.list_models(module=torchvision.models)``.
        num_classes: Number of logits.
        weights: ``none`` (random), a name of torchvision's as ``DEFAULT`` or ``IMAGENET1K_V1``, the
            path of a state dict that ends in ``.pth`` or ``.pt``, where one without the last layer
            will do, or that of a checkpoint (``.ckpt``), whose head is taken too if it has as many
            classes.
        dropout: Probability that a feature is dropped before the new layer.

    Raises:
        ValueError: There is no such network, there are no such weights, or they belong to another
            network.
        OSError: The weights cannot be read or downloaded.
    """
    net, head = _build(arch, weights)
    layer = net.get_submodule(head)
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    num_features = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
    net.set_submodule(head, nn.Identity())
    new_head = nn.Sequential(nn.Dropout(dropout), nn.Linear(num_features, num_classes))
    if weights != "none":
        state, source = read_weights(arch, weights), f"`weights` {weights} for {arch}"
        heads = [f"{name}." for name in (head, *_AUXILIARY, "net")]
        net.load_state_dict(check_keys(state, net.state_dict(), extra=heads, source=source))
        learnt = {
            key.removeprefix("net.head."): value
            for key, value in state.items()
            if key.startswith("net.head.")
        }
        shapes = {key: value.shape for key, value in learnt.items()}
        if shapes == {key: value.shape for key, value in new_head.state_dict().items()}:
            new_head.load_state_dict(learnt)
    wanted = preprocessing(arch, weights)
    return ImageClassifier(Standardize(wanted.mean, wanted.std), net, new_head)


def _build(arch: str, weights: str) -> tuple[nn.Module, str]:
    """Return a network with random weights, without dropout before its last layer, and the name of that layer."""
    entry, inception = named_weights(arch, weights), arch in _INCEPTIONS
    if (
        arch.startswith("vit_")
        and weights in type(entry).__members__
        and entry.meta["min_size"] != (VIT_SIZE,) * 2
    ):
        fitting = [other.name for other in type(entry) if other.meta["min_size"] == (VIT_SIZE,) * 2]
        raise ValueError(
            f"`weights` {weights}: expected weights for images of {VIT_SIZE} pixels, as {', '.join(fitting)}, "
            f"got some for {entry.meta['min_size'][0]}"
        )
    options = (
        {"aux_logits": False, "transform_input": True, "init_weights": True} if inception else {}
    )
    net: nn.Module = get_model(arch, weights=None, **options)
    sizes = {name: _num_outputs(module) for name, module in net.named_modules()}
    head = [name for name, size in sizes.items() if size == _IMAGENET_CLASSES][-1]
    before = None
    for name, module in net.named_modules():
        if name == head:
            break
        if isinstance(module, nn.Dropout):
            before = module
        elif [*module.parameters(recurse=False)]:
            before = None
    if before is not None:
        before.p = 0.0  # the new head has its own
    return net, head


def _num_outputs(module: nn.Module) -> int:
    """Return the outputs of a dense layer, or of a 1x1 convolution, as SqueezeNet ends in; 0 of any other module."""
    if isinstance(module, nn.Linear):
        return module.out_features
    return (
        module.out_channels if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) else 0
    )
