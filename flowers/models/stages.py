"""Dividing the blocks of any backbone into stages, from input to output."""

import numpy as np
from torch import nn


def split_stages(backbone: nn.Module, num_stages: int) -> list[nn.ModuleList]:
    """Divide a backbone into stages of about equally many blocks, in order from the input.

    Blocks keep the order in which they were registered, which in torchvision's networks is the
    order of computation. Stages share their modules with the backbone, and every parameter of the
    backbone is in one stage: those outside all blocks, such as a position embedding, in the first.

    Args:
        backbone: The backbone.
        num_stages: Number of stages; with fewer blocks some are empty.
    """
    blocks = _blocks(backbone, half=_num_parameters(backbone) / 2)
    stages = []
    for numbers in np.array_split(np.arange(len(blocks)), num_stages):
        stages.append(nn.ModuleList(blocks[number] for number in numbers))
    in_blocks = set(nn.ModuleList(blocks).parameters())
    if others := [parameter for parameter in backbone.parameters() if parameter not in in_blocks]:
        stages[0].append(nn.ParameterList(others))
    return stages


def _blocks(module: nn.Module, *, half: float) -> list[nn.Module]:
    """Return the blocks of a module.

    Sequences are divided into their modules, and so is a module with more than ``half`` (of the
    network's) parameters. Any other module with parameters is a block.
    """
    blocks = []
    for child in module.children():
        size = _num_parameters(child)
        is_sequence = isinstance(child, nn.Sequential | nn.ModuleList)
        is_most = size > half and len(list(child.children())) > 0
        if is_sequence or is_most:
            blocks += _blocks(child, half=half)
        elif size > 0:
            blocks.append(child)
    return blocks


def _num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
