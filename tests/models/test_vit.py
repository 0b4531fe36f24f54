import math

import torch

from models.vit import Attention, Block, sincos_positions


def test_positions_equal_a_slow_loop_on_a_non_square_grid():
    rows, columns, width = 3, 5, 16
    expected = torch.zeros(rows * columns, width, dtype=torch.float64)
    quarter = width // 4
    for row in range(rows):
        for column in range(columns):
            for i in range(quarter):
                frequency = 10000 ** (-i / quarter)
                token = expected[row * columns + column]
                token[i] = math.sin(row * frequency)
                token[quarter + i] = math.cos(row * frequency)
                token[2 * quarter + i] = math.sin(column * frequency)
                token[3 * quarter + i] = math.cos(column * frequency)
    positions = sincos_positions(rows, columns, width)
    assert positions.shape == (rows * columns, width) and positions.dtype == torch.float32
    torch.testing.assert_close(positions.double(), expected, atol=1e-6, rtol=0)


def test_attention_equals_a_written_out_softmax():
    torch.manual_seed(0)
    batch, tokens, width, heads = 2, 7, 12, 3
    attention, x = Attention(width, heads), torch.randn(batch, tokens, width)
    size = width // heads
    expected = torch.zeros(batch, tokens, width)
    for b in range(batch):
        query, key, value = (x[b] @ attention.qkv.weight.T + attention.qkv.bias).split(width, dim=1)
        for h in range(heads):
            part = slice(h * size, (h + 1) * size)
            for n in range(tokens):
                weight = torch.stack([query[n, part] @ key[m, part] / math.sqrt(size) for m in range(tokens)]).exp()
                mixed = sum(weight[m] * value[m, part] for m in range(tokens)) / weight.sum()
                expected[b, n, part] = mixed
    expected = expected @ attention.project.weight.T + attention.project.bias
    torch.testing.assert_close(attention(x), expected)


def test_a_block_normalises_before_each_part_and_adds_its_input():
    torch.manual_seed(0)
    block, x = Block(16, 2), torch.randn(2, 5, 16)
    between = x + block.attention(block.norm1(x))
    torch.testing.assert_close(block(x), between + block.mlp(block.norm2(between)))
    assert block.mlp[0].out_features == 64
