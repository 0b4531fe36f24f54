"""A scene larger than memory, seen through overlapping windows: where they lie, and how they become one map."""

import math

import torch

ALIGN = 32  # pixels of the image along one of the U-Net's deepest features


def window_starts(side, window, overlap):
    """Where the windows along a side of `side` px begin, and their size: spaced evenly, `overlap` px or more in common.

    All are multiples of 32, and the last window ends where the U-Net's own padding of the whole scene would end. So a
    window shows the network what it would be given of the whole scene there. window, overlap: multiples of 32
    """
    padded = -(-side // ALIGN) * ALIGN
    if padded <= window:
        return [0], padded
    last = math.ceil((padded - window) / (window - overlap))
    return [(padded - window) // ALIGN * i // last * ALIGN for i in range(last + 1)], window


def blend_weights(starts, size):
    """Blending weights of each window along a side, (len(starts), size); at each pixel they sum to 1 over the windows.

    Each is a Hann curve divided by the sum of all: smooth, smallest at a window's edge, where it has the least context,
    and 1 where only one window lies, up to the scene's edge.
    """
    curve = torch.sin(torch.pi * (torch.arange(size, dtype=torch.float64) + 0.5) / size) ** 2
    total = torch.zeros(starts[-1] + size, dtype=torch.float64)
    for start in starts:
        total[start : start + size] += curve
    return torch.stack([curve / total[start : start + size] for start in starts]).float()


class Blend:
    """Class probabilities of windows, in reading order -> blocks of the map; holds what later windows still add to."""

    def __init__(self, classes, rows, cols, height, width, device):
        self.rows, self.cols, self.height, self.width = rows, cols, height, width
        self.row_weights = blend_weights(rows, height).to(device)
        self.col_weights = blend_weights(cols, width).to(device)
        deepest = max((height - (b - a) for a, b in zip(rows, rows[1:], strict=False)), default=0)
        self.below = torch.zeros(classes, deepest, cols[-1] + width, device=device)
        self.right = None

    def add(self, i, j, probs):
        """The window at rows[i], cols[j]: (C, height, width), which is written over.

        returns: (C, H, W) with which the map is done from there on, down to the next row of windows and right to the
                 next window
        """
        above, done_rows = _shares(self.rows, i, self.height)
        before, done_cols = _shares(self.cols, j, self.width)
        probs *= self.col_weights[j]
        probs *= self.row_weights[i][:, None]
        if before:
            probs[:, :, :before] += self.right
        self.right = probs[:, :, done_cols:].clone()
        block = probs[:, :, :done_cols]
        below = self.below[:, :, self.cols[j] : self.cols[j] + done_cols]
        block[:, :above] += below[:, :above]
        below[:, : self.height - done_rows] = block[:, done_rows:]
        return block[:, :done_rows]


def probabilities(logits):
    """(B, C, H, W) of any type and layout -> probabilities, float32, contiguous."""
    return logits.float().contiguous().softmax(dim=1)


def mean_over_views(network, images):
    """The mean of `network(view)`, (B, C, H, W), over the eight dihedral views of (B, K, H, W), each turned back."""
    total = 0
    for turns in range(4):
        for mirrored in (False, True):
            view = images.rot90(turns, (2, 3))
            probs = network(view.flip(3) if mirrored else view)
            total = total + (probs.flip(3) if mirrored else probs).rot90(-turns, (2, 3))
    return total / 8


def _shares(starts, i, size):
    """Pixels of window i from its start on: to where its predecessor ends, and to where its successor begins."""
    before = starts[i - 1] + size - starts[i] if i else 0
    return before, starts[i + 1] - starts[i] if i + 1 < len(starts) else size
