"""Whether a checkpoint is still what was saved."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

# What inference depends on. The optimizer's state, whose damage a resumed training would survive, is left out.
_COVERED = ("hyper_parameters", "config", "calibration", "FlowersDataModule")


def checkpoint_checksum(checkpoint: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a checkpoint's weights, and of the values that say how to use them.

    Args:
        checkpoint: The checkpoint.

    Raises:
        ValueError: A weight claims to be larger than what is stored of it.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(checkpoint["state_dict"].items()):
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ValueError(f"{name}, which is larger than what is stored of it")
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(memoryview(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()))
    values = {name: checkpoint.get(name) for name in _COVERED}
    digest.update(json.dumps(values, sort_keys=True, default=str).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
