"""Says what is wrong with an option before any work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.utilities import rank_zero_warn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

# Options that the optimizer's state in a checkpoint overrules.
_RESTORED = ("lr", "weight_decay", "stage_decay")


def expect(holds: bool, name: str, expected: str, got: object) -> None:
    """Raise a ``ValueError`` that names the parameter unless a condition holds."""
    if not holds:
        raise ValueError(f"`{name}`: expected {expected}, got {got}")


def check_size(net: nn.Module, size: int, option: str) -> None:
    """Try a network on an image of some size.

    Args:
        net: Maps images ``(B, 3, S, S)`` to logits; it is left as it was.
        size: Side S, in pixels.
        option: The option that says so.

    Raises:
        ValueError: The network takes no such image.
    """
    training = net.training
    try:
        with torch.no_grad():
            net.eval()(torch.zeros(2, 3, size, size))
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{option}: expected a size that the network takes, got {size} pixels ({reason})"
        ) from error
    finally:
        net.train(training)


def check_weights(net: nn.Module, stored: Mapping[str, Tensor]) -> None:
    """Compare a network with the weights it is to get.

    Args:
        net: The network of a task.
        stored: A state dict of the task.

    Raises:
        ValueError: They do not fit.
    """
    mine = {f"net.{name}": value.shape for name, value in net.state_dict().items()}
    theirs = {name: value.shape for name, value in stored.items() if name.startswith("net.")}
    if other := sorted(
        name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name)
    ):
        raise ValueError(
            f"--ckpt_path: the checkpoint is of another network than the options of --model make: {len(other)} of its "
            f"weights do not fit, as {other[0]}. Leave the options out, the checkpoint carries them."
        )


def warn_of_restored(typed: Mapping[str, Any], stored: Mapping[str, Any]) -> None:
    """Warn of options that a resumed training does not take, since its optimizer is restored.

    Args:
        typed: The task's options.
        stored: Those in the checkpoint.
    """
    other = [key for key in _RESTORED if stored.get(key) != typed.get(key)]
    if other:
        options = ", ".join(f"--model.{key} {typed.get(key)} ({stored.get(key)})" for key in other)
        rank_zero_warn(
            f"{options}: the training goes on with what the checkpoint has, in brackets, since optimizer and schedule "
            f"are restored. A new training with a pretrained network takes its weights by --model.weights."
        )
