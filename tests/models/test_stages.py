from __future__ import annotations

import torch
from torch import nn

from flowers.models import pretrained, split_stages


def test_the_stages_of_every_family_cover_the_backbone_once_and_in_order(family):
    backbone = pretrained(family[0], 3, weights="none").backbone
    stages = split_stages(backbone, 4)
    assert len(stages) == 4
    assert all(len(stage) for stage in stages)
    parameters = []
    buffers = []
    for stage in stages:
        parameters += [id(parameter) for parameter in stage.parameters()]
        buffers += [id(buffer) for buffer in stage.buffers()]
    assert sorted(parameters) == sorted(id(parameter) for parameter in backbone.parameters())
    assert sorted(buffers) == sorted(id(buffer) for buffer in backbone.buffers())
    # The weights next to the images are in the first stage, the last layers in the last.
    convolution = next(p for p in backbone.parameters() if p.ndim == 4)
    assert any(p is convolution for p in stages[0].parameters())
    last = [*backbone.parameters()][-1]
    assert any(p is last for p in stages[3].parameters())


def test_parameters_outside_of_all_blocks_are_in_the_first_stage():
    class Backbone(nn.Module):
        def __init__(self):
            super().__init__()
            self.position = nn.Parameter(torch.zeros(1))
            self.blocks = nn.Sequential(*(nn.Linear(2, 2) for _ in range(4)))

    backbone = Backbone()
    first, second = split_stages(backbone, 2)
    assert any(parameter is backbone.position for parameter in first.parameters())
    assert [*first][:2] == [*backbone.blocks[:2]]
    assert [*second] == [*backbone.blocks[2:]]


def test_with_fewer_blocks_than_stages_some_are_empty():
    stages = split_stages(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), 3)
    assert [len(stage) for stage in stages] == [1, 1, 0]
