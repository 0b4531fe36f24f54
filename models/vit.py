"""Vision Transformer blocks (ref. 5), with fixed 2-D sine-cosine positions for any grid of tokens."""

import torch
import torch.nn.functional as F
from torch import nn


def sincos_positions(rows, columns, width, device=None):
    """Fixed positions of a grid of tokens, row by row: (rows * columns, width) float32, width a multiple of 4.

    One half of the width encodes the row, the other the column; each half is sines, then cosines, of the coordinate
    times 10000^(-i / (width / 4)), i = 0 .. width / 4 - 1.
    """
    frequency = 10000.0 ** (-torch.arange(width // 4, device=device, dtype=torch.float32) / (width // 4))

    def encode(length):
        angle = torch.arange(length, device=device, dtype=torch.float32)[:, None] * frequency
        return torch.cat([angle.sin(), angle.cos()], dim=1)  # (length, width / 2)

    row = encode(rows)[:, None].expand(rows, columns, -1)
    column = encode(columns)[None].expand(rows, columns, -1)
    return torch.cat([row, column], dim=2).flatten(0, 1)


class Attention(nn.Module):
    """Multi-head self-attention: (B, N, D) -> (B, N, D)."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)

    def forward(self, tokens):
        query, key, value = self.qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)  # (B, heads, N, D / heads)
        return self.project(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention, then a perceptron four times as wide, each normalised before and added to its input (pre-norm)."""

    def __init__(self, width, heads):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, tokens):
        tokens = tokens + self.attention(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


class Transformer(nn.Module):
    """`depth` blocks and a last normalisation: (B, N, D) -> (B, N, D). Positions are the caller's to add."""

    def __init__(self, width, depth, heads):
        super().__init__()
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, tokens):
        return self.norm(self.blocks(tokens))
