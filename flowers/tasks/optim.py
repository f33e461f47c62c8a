"""Parameter groups, learning-rate schedule and averaging of weights."""

import math
from typing import Any

from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


def decay_groups(module: nn.Module, *, weight_decay: float) -> list[dict[str, Any]]:
    """Return two parameter groups: weights with weight decay, and norms and biases without.

    See https://arxiv.org/abs/1812.01187, section 3.1.
    """
    matrices = [parameter for parameter in module.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in module.parameters() if parameter.ndim <= 1]
    return [
        {"params": matrices, "weight_decay": weight_decay, "name": "weights"},
        {"params": vectors, "weight_decay": 0.0, "name": "norms_and_biases"},
    ]


def warmup_cosine(step: int, *, num_steps: int, warmup_steps: int) -> float:
    """Return the factor of the learning rate: a linear rise to 1, then half a cosine down to 0.

    Args:
        step: Number of the optimizer step, counted from 0.
        num_steps: Number of steps of the whole training.
        warmup_steps: Number of steps of the rise (https://arxiv.org/abs/1706.02677). The cosine
            follows https://arxiv.org/abs/1608.03983, without restarts.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def warmup_ema(
    averages: list[Tensor], weights: list[Tensor], num_updates: Tensor, *, decay: float
) -> None:
    """Update averaged weights, with a decay that rises to its final value.

    After n updates, the decay is ``min(decay, (1 + n) / (10 + n))``, so that the random initial
    weights contribute little to the average of a short training
    (https://www.tensorflow.org/api_docs/python/tf/train/ExponentialMovingAverage).

    Args:
        averages: The averaged weights, updated in place.
        weights: The current weights.
        num_updates: Number of earlier updates.
        decay: Largest decay, per step.
    """
    count = int(num_updates)
    average = get_ema_multi_avg_fn(min(decay, (1 + count) / (10 + count)))  # type: ignore[no-untyped-call]
    average(averages, weights, num_updates)
