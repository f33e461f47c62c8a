"""Checks of options before any work."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn


def expect(holds: bool, name: str, expected: str, got: object) -> None:
    """Raise a ``ValueError`` that names the parameter if ``holds`` is false.

    The types of ``jsonargparse.typing``, such as ``PositiveFloat``, check the command line only.
    Their values are instances of these types, so ``torch.load`` with ``weights_only`` would refuse
    a checkpoint with them.
    """
    if not holds:
        raise ValueError(f"`{name}`: expected {expected}, got {got}")


def check_size(net: nn.Module, size: int, option: str) -> None:
    """Check that a network accepts images of a given size.

    Args:
        net: Maps images ``(B, 3, S, S)`` to logits; the network is not changed.
        size: Side S, in pixels.
        option: The option that sets the size, for the error message.

    Raises:
        ValueError: The network does not accept this size.
    """
    training = net.training
    try:
        with torch.no_grad():
            net.eval()(torch.zeros(2, 3, size, size))
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{option}: expected a size that the network accepts, got {size} pixels ({reason})"
        ) from error
    finally:
        net.train(training)


def check_weights(net: nn.Module, stored: Mapping[str, Tensor]) -> None:
    """Check that the weights in a checkpoint have the names and shapes of a network's weights.

    Args:
        net: The network of a task.
        stored: The state dict in the checkpoint.

    Raises:
        ValueError: Names or shapes differ.
    """
    expected = {f"net.{name}": value.shape for name, value in net.state_dict().items()}
    shapes = {name: value.shape for name, value in stored.items() if name.startswith("net.")}
    if different := sorted(dict(expected.items() ^ shapes.items())):
        raise ValueError(
            f"`ckpt_path`: expected a checkpoint of the network that the model's options describe, "
            f"got {len(different)} weights that differ, such as {different[0]}. Leave out the "
            f"model's options: the checkpoint stores them."
        )


def warn_of_restored(options: Mapping[str, Any], stored: Mapping[str, Any]) -> None:
    """Warn of options that have no effect because the optimizer is restored from a checkpoint.

    Args:
        options: The options of the task.
        stored: The options in the checkpoint.
    """
    ignored = []
    for name in ("lr", "weight_decay", "stage_decay"):  # they are in the optimizer's state
        if stored.get(name) != options.get(name):
            ignored.append(f"`{name}` {options.get(name)} (checkpoint: {stored.get(name)})")
    if ignored:
        hint = "leave out `ckpt_path`"
        if "arch" in options:  # of TransferTask
            hint = "give the checkpoint as `weights` instead of `ckpt_path`"
        rank_zero_warn(
            f"{', '.join(ignored)} has no effect: a resumed training restores the checkpoint's "
            f"optimizer and schedule. To start a new training, {hint}."
        )
