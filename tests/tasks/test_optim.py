from __future__ import annotations

import math

import pytest
import torch

from flowers.models import flower_cnn
from flowers.tasks.optim import decay_groups, warmup_cosine, warmup_ema


def test_every_parameter_is_in_exactly_one_group_and_only_weights_decay():
    net = flower_cnn(5, widths=(8, 16))
    groups = decay_groups(net, weight_decay=0.05)
    ids = [id(p) for group in groups for p in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in net.parameters())
    names = {id(p): name for name, p in net.named_parameters()}
    decaying = {names[id(p)] for p in groups[0]["params"]}
    assert groups[0]["weight_decay"] == 0.05
    assert groups[1]["weight_decay"] == 0
    assert not any(name.endswith("bias") for name in decaying)
    assert "head.3.weight" in decaying


def test_the_rate_rises_then_falls_along_a_cosine():
    factors = [warmup_cosine(step, num_steps=100, warmup_steps=10) for step in range(100)]
    assert factors[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert factors[10] == 1
    assert factors[55] == pytest.approx(0.5)
    assert factors[99] == pytest.approx(0.5 * (1 + math.cos(math.pi * 89 / 90)))
    assert factors[10:] == sorted(factors[10:], reverse=True)


def test_without_a_warmup_it_starts_at_the_top_and_ends_at_zero():
    assert warmup_cosine(0, num_steps=10, warmup_steps=0) == 1
    assert warmup_cosine(10, num_steps=10, warmup_steps=0) == 0
    assert warmup_cosine(12, num_steps=10, warmup_steps=0) == 0


@pytest.mark.parametrize("num_steps", [1, 10, 30, 100, 2000])
def test_the_average_of_any_number_of_steps_forgets_where_it_began(num_steps):
    average = [torch.tensor([1.0])]  # the first weights are 1, all later ones 0
    for step in range(1, num_steps + 1):
        warmup_ema(average, [torch.tensor([0.0])], torch.tensor(step), decay=0.995)
    assert average[0] < 0.19 if num_steps == 1 else average[0] < 1e-3


def test_the_average_ends_with_the_decay_that_was_given():
    average = [torch.tensor([1.0])]
    warmup_ema(average, [torch.tensor([0.0])], torch.tensor(1000), decay=0.9)
    assert average[0] == pytest.approx(0.9)
