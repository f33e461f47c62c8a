"""Dividing the blocks of any backbone into stages, from input to output."""

import numpy as np
from torch import nn


def split_stages(backbone: nn.Module, num_stages: int) -> list[nn.ModuleList]:
    """Divide a backbone into stages of about equally many blocks, in order from the input.

    Blocks keep the order in which they were registered, which in torchvision's networks is the
    order of computation. The stages contain the backbone's own modules, not copies. Every parameter
    is in one stage; parameters outside all blocks, such as a position embedding, are in the first.

    Args:
        backbone: The backbone.
        num_stages: Number of stages. If the backbone has fewer blocks, some stages are empty.
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

    A ``Sequential``, a ``ModuleList``, and a container of more than ``half`` parameters (half of
    the backbone's) are divided into their modules. Any other module with parameters is a block.
    """
    blocks = []
    for child in module.children():
        size = _num_parameters(child)
        is_sequence = isinstance(child, nn.Sequential | nn.ModuleList)
        is_large = size > half and len(list(child.children())) > 0
        if is_sequence or is_large:
            blocks += _blocks(child, half=half)
        elif size > 0:
            blocks.append(child)
    return blocks


def _num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
