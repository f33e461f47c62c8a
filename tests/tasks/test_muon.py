from __future__ import annotations

import copy

import pytest
import torch

from flowers.models import flower_cnn
from flowers.tasks.muon import Muon, orthogonalize
from flowers.tasks.optim import decay_groups


def optimizer_of(net, lr=0.01, weight_decay=0.1):
    return Muon(decay_groups(net, weight_decay=weight_decay), lr=lr)


def backward(net):
    torch.manual_seed(0)
    net.zero_grad()
    net(torch.rand(8, 3, 32, 32)).square().mean().backward()


@pytest.mark.parametrize("shape", [(6, 40), (40, 6), (7, 7)])
def test_singular_values_end_near_one_and_singular_vectors_stay(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    result = orthogonalize(matrix)
    singular = torch.linalg.svdvals(result)
    assert singular.min() > 0.6
    assert singular.max() < 1.3
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    inner = left.T @ result @ right.T
    assert torch.allclose(inner, inner.diag().diag(), atol=1e-4)


def test_an_update_has_the_size_of_an_update_of_adamw():
    torch.manual_seed(0)
    net = flower_cnn(5, widths=(16, 32))
    before = copy.deepcopy(net.state_dict())
    backward(net)
    optimizer_of(net, lr=0.01, weight_decay=0).step()
    for name, weight in net.named_parameters():
        if weight.ndim == 4:
            rms = (weight - before[name]).square().mean().sqrt()
            assert 0.1 < rms / 0.01 < 0.3, name


def test_dense_layer_norms_and_biases_are_updated_as_by_adamw():
    torch.manual_seed(0)
    net = flower_cnn(5, widths=(8, 16))
    other = copy.deepcopy(net)
    groups = [
        {"params": [p for p in other.parameters() if p.ndim == 2], "weight_decay": 0.1},
        {"params": [p for p in other.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=0.01)
    backward(net)
    backward(other)
    optimizer_of(net).step()
    adamw.step()
    for (name, mine), theirs in zip(net.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs) == (mine.ndim != 4), name


def test_a_restored_optimizer_continues_bit_for_bit():
    torch.manual_seed(0)
    net = flower_cnn(5, widths=(8, 16))
    optimizer = optimizer_of(net)
    backward(net)
    optimizer.step()
    other = copy.deepcopy(net)
    restored = optimizer_of(other)
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for model, its_optimizer in ((net, optimizer), (other, restored)):
        backward(model)
        its_optimizer.step()
    for mine, theirs in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_the_closure_is_called_with_gradients_and_its_loss_returned():
    net = flower_cnn(5, widths=(8, 16))
    optimizer = optimizer_of(net)

    def closure():
        optimizer.zero_grad()
        loss = net(torch.rand(4, 3, 16, 16)).square().mean()
        loss.backward()
        return loss

    first = optimizer.step(closure)
    for _ in range(20):
        last = optimizer.step(closure)
    assert last < first
