"""The optimizer of networks trained from scratch."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_MOMENTUM = 0.95
# Coefficients and number of the Newton-Schulz iterations are those of
# https://kellerjordan.github.io/posts/muon/.
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
_NUM_ITERATIONS = 5
# Root mean square of an update, close to that of AdamW's updates, so that Muon and AdamW can share
# learning rate and weight decay (https://arxiv.org/abs/2502.16982, section 2.2).
_UPDATE_RMS = 0.2


class Muon(torch.optim.AdamW):
    """Muon for the weights of convolutions, AdamW for all other parameters.

    Muon updates a weight matrix by the orthogonal matrix nearest to the momentum, so that all
    directions are learned at the same speed (https://kellerjordan.github.io/posts/muon/). The
    weights ``(out, in, k, k)`` of a convolution are reshaped to a matrix ``(out, in * k * k)``.

    ``torch.optim.Muon`` does not support convolutions. Both optimizers are in one class, because
    Lightning's automatic optimization allows only one.

    The constructor's arguments are those of ``torch.optim.AdamW``.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """Update all parameters that have a gradient, and delete the gradients of convolutions."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.ndim == 4 and weight.grad is not None:
                    self._step(weight, weight.grad, group)
                    weight.grad = None  # AdamW skips parameters without a gradient
        super().step()
        return loss

    def _step(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state["step"] = torch.zeros(())  # AdamW reads it when restoring a state
            state["momentum"] = torch.zeros_like(weight)
        momentum: Tensor = state["momentum"].lerp_(gradient, 1 - _MOMENTUM)
        matrix = gradient.lerp(momentum, _MOMENTUM).flatten(1)  # Nesterov momentum
        size = _UPDATE_RMS * max(matrix.shape) ** 0.5
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.add_(orthogonalize(matrix).view_as(weight), alpha=-group["lr"] * size)


def orthogonalize(matrix: Tensor) -> Tensor:
    """Return a matrix with the singular vectors of ``matrix`` and singular values near 1.

    Args:
        matrix: Floats ``(M, N)``.
    """
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonalize(matrix.T).T
    a, b, c = _NEWTON_SCHULZ
    result: Tensor = matrix / (matrix.norm() + 1e-7)
    for _ in range(_NUM_ITERATIONS):
        gram = result @ result.T
        result = a * result + (b * gram + c * gram @ gram) @ result
    return result
