"""Says what is wrong with an option before any work."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import nn


def expect(holds: bool, name: str, expected: str, got: object, section: str = "--model") -> None:
    """Raise a ``ValueError`` that names the option unless a condition holds."""
    if not holds:
        raise ValueError(f"{section}.{name}: expected {expected}, got {got}")


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
        raise ValueError(f"{option}: expected a size that the network takes, got {size} pixels ({reason})") from error
    finally:
        net.train(training)
