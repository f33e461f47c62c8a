"""Dividing the blocks of any backbone into stages, from input to output."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import nn

if TYPE_CHECKING:
    from torch.nn import Parameter


class Stage(nn.Module):
    """Blocks of a backbone that are frozen, or trained, together.

    Args:
        blocks: The blocks.
        loose: Parameters outside all blocks, such as a position embedding.
    """

    def __init__(self, blocks: list[nn.Module], loose: list[Parameter]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.loose = nn.ParameterList(loose)


def split_stages(backbone: nn.Module, num_stages: int) -> list[Stage]:
    """Divide a backbone into stages of about equally many blocks, in order from the input.

    Blocks keep the order in which they were registered, which in torchvision's networks is the
    order of computation. Stages share their modules with the backbone, and every parameter of the
    backbone is in one stage.

    Args:
        backbone: The backbone.
        num_stages: Number of stages; with fewer blocks some are empty.
    """
    blocks = _blocks(backbone, half=_num_parameters(backbone) / 2)
    in_blocks = {id(parameter) for parameter in nn.ModuleList(blocks).parameters()}
    loose = [parameter for parameter in backbone.parameters() if id(parameter) not in in_blocks]
    stages = []
    for numbers in np.array_split(np.arange(len(blocks)), num_stages):
        stages.append(Stage([blocks[number] for number in numbers], loose))
        loose = []  # only the first stage has them
    return stages


def _blocks(module: nn.Module, *, half: float) -> list[nn.Module]:
    """Return the blocks of a module.

    Sequences are divided into their modules, and so is a module with more than ``half`` (of the
    network's) parameters. Any other module with parameters is a block.
    """
    blocks = []
    for child in module.children():
        size = _num_parameters(child)
        if size == 0:
            continue
        is_sequence = isinstance(child, nn.Sequential | nn.ModuleList)
        is_most = size > half and len(list(child.children())) > 0
        if is_sequence or is_most:
            blocks += _blocks(child, half=half)
        else:
            blocks.append(child)
    return blocks


def _num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
