"""The network: a Llama (RMSNorm, rotary positions, grouped-query attention, SwiGLU, tied embeddings)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Shape:
    """Sizes of the network; `head_size * heads` equals `width`."""

    vocab: int = 4096
    width: int = 256
    layers: int = 8
    heads: int = 4
    kv_heads: int = 2
    hidden: int = 704
    context: int = 8192
    rope_base: float = 50_000.0
    norm_eps: float = 1e-5

    @property
    def head_size(self) -> int:
        """Channels of one attention head."""
        return self.width // self.heads


def rotation(positions: Tensor, shape: Shape) -> tuple[Tensor, Tensor]:
    """Return cosines and sines, each `[batch, 1, time, head_size]`, for integer `positions` `[batch, time]`.

    The pairing is (i, i + head_size/2), Hugging Face's order; the GGUF export permutes for llama.cpp's.
    """
    half = torch.arange(0, shape.head_size, 2, device=positions.device, dtype=torch.float32)
    angles = positions.float()[..., None] * shape.rope_base ** (-half / shape.head_size)
    angles = torch.cat((angles, angles), dim=-1)[:, None]
    return angles.cos(), angles.sin()


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class Block(nn.Module):
    """One layer; parameter names are Hugging Face's, so that the export is a copy."""

    def __init__(self, shape: Shape) -> None:
        """Make the layer's weights."""
        super().__init__()
        self.shape = shape
        kv_width = shape.kv_heads * shape.head_size
        self.input_layernorm = nn.RMSNorm(shape.width, eps=shape.norm_eps)
        self.q_proj = nn.Linear(shape.width, shape.width, bias=False)
        self.k_proj = nn.Linear(shape.width, kv_width, bias=False)
        self.v_proj = nn.Linear(shape.width, kv_width, bias=False)
        self.o_proj = nn.Linear(shape.width, shape.width, bias=False)
        self.post_attention_layernorm = nn.RMSNorm(shape.width, eps=shape.norm_eps)
        self.gate_proj = nn.Linear(shape.width, shape.hidden, bias=False)
        self.up_proj = nn.Linear(shape.width, shape.hidden, bias=False)
        self.down_proj = nn.Linear(shape.hidden, shape.width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Map `[batch, time, width]` to the same shape, each position seeing itself and earlier ones."""
        batch, time, width = x.shape
        size = self.shape.head_size
        h = self.input_layernorm(x)
        q = self.q_proj(h).view(batch, time, self.shape.heads, size).transpose(1, 2)
        k = self.k_proj(h).view(batch, time, self.shape.kv_heads, size).transpose(1, 2)
        v = self.v_proj(h).view(batch, time, self.shape.kv_heads, size).transpose(1, 2)
        q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
        groups = self.shape.heads // self.shape.kv_heads
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
        attended = functional.scaled_dot_product_attention(q, k, v.to(q.dtype), is_causal=True)
        x = x + self.o_proj(attended.transpose(1, 2).reshape(batch, time, width))
        h = self.post_attention_layernorm(x)
        return x + self.down_proj(functional.silu(self.gate_proj(h)) * self.up_proj(h))


class Llama(nn.Module):
    """The whole network; input and output embeddings are one matrix."""

    def __init__(self, shape: Shape) -> None:
        """Make the weights, normally distributed; call `torch.manual_seed` before."""
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocab, shape.width)
        self.layers = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.width, eps=shape.norm_eps)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                damp = (2 * shape.layers) ** -0.5 if name.endswith(("o_proj.weight", "down_proj.weight")) else 1.0
                nn.init.normal_(weight, std=0.02 if "embed" in name else damp * weight.shape[1] ** -0.5)

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Return the logits `[batch, time, vocab]` for `tokens` and `positions`, both `[batch, time]`."""
        x = self.embed_tokens(tokens)
        cos, sin = rotation(positions, self.shape)
        cos, sin = cos.to(x.dtype), sin.to(x.dtype)
        for layer in self.layers:
            x = layer(x, cos, sin)
        logits: Tensor = functional.linear(self.norm(x), self.embed_tokens.weight)
        return logits
