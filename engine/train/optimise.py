"""The optimiser: Muon for the matrices of the layers, AdamW for the embedding and the norms."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from train.network import Llama

# Newton-Schulz coefficients of Muon (K. Jordan and others, 2024, "Muon: an optimizer for hidden layers").
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def _orthogonal(matrix: Tensor, steps: int = 5) -> Tensor:
    """Return the nearest semi-orthogonal matrix, approximately, computed in bfloat16."""
    a, b, c = _COEFFICIENTS
    x = matrix.bfloat16()
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised; for two-dimensional weights only."""

    def __init__(self, weights: list[Tensor], lr: float, momentum: float = 0.95, decay: float = 0.05) -> None:
        """Take the matrices to train; `lr` is scaled per matrix to match AdamW's update size."""
        super().__init__(weights, {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Change every weight by one update from its gradient."""
        del closure
        for group in self.param_groups:
            for weight in group["params"]:
                velocity = self.state[weight].setdefault("velocity", torch.zeros_like(weight))
                velocity.lerp_(weight.grad, 1 - group["momentum"])
                update = _orthogonal(weight.grad.lerp(velocity, group["momentum"]))
                scale = 0.2 * math.sqrt(max(weight.shape))
                weight.mul_(1 - group["lr"] * group["decay"])
                weight.add_(update.to(weight.dtype), alpha=-group["lr"] * scale)


def make(network: Llama, lr: float) -> list[torch.optim.Optimizer]:
    """Return the optimisers of all weights; the caller steps each and sets `lr` in their groups."""
    named = list(network.named_parameters())
    matrices = [w for n, w in named if w.ndim == 2 and "embed" not in n]
    others = [w for n, w in named if w.ndim != 2 or "embed" in n]
    return [Muon(matrices, lr), torch.optim.AdamW(others, lr, betas=(0.9, 0.95), weight_decay=0.0)]
