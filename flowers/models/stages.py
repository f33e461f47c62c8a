"""A backbone as a few stages from its input to its output, whatever its architecture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import nn

if TYPE_CHECKING:
    from torch.nn import Parameter


class Stage(nn.Module):
    """Blocks of a backbone that are frozen, or learn, together.

    Args:
        blocks: The blocks.
        own: Parameters outside of all blocks, as a position embedding.
    """

    def __init__(self, blocks: list[nn.Module], own: list[Parameter]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.own = nn.ParameterList(own)


def split_stages(backbone: nn.Module, num_stages: int) -> list[Stage]:
    """Return a backbone's blocks in stages with about equally many, first those next to the input.

    Blocks are taken in the order in which they were registered, which in torchvision's networks is
    the order of computation. The last stage of a network that ends in small layers of its own can
    thus be small. A stage shares its modules with the backbone, and every parameter of the backbone
    is in one stage.

    Args:
        backbone: The backbone.
        num_stages: Number of stages; with fewer blocks some are empty.
    """
    num_parameters = sum(parameter.numel() for parameter in backbone.parameters())
    blocks = _blocks(backbone, half=num_parameters / 2)
    inside = {id(parameter) for block in blocks for parameter in block.parameters()}
    own = [parameter for parameter in backbone.parameters() if id(parameter) not in inside]
    parts = np.array_split(np.arange(len(blocks)), num_stages)
    return [
        Stage([blocks[number] for number in part], own if stage == 0 else [])
        for stage, part in enumerate(parts)
    ]


def _blocks(module: nn.Module, *, half: float) -> list[nn.Module]:
    """Return the blocks a module is made of: sequences, and what holds most of the parameters, are made of others."""
    blocks = []
    for child in module.children():
        size = sum(parameter.numel() for parameter in child.parameters())
        container = isinstance(child, nn.Sequential | nn.ModuleList) or (
            size > half and any(child.children())
        )
        if size:
            blocks += _blocks(child, half=half) if container else [child]
    return blocks
