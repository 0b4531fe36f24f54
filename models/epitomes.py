"""Self-Epitomic label super-resolution (ref. 20): one tile's labels from its image and low labels, without training.

The image is its own epitome: each position s is the centre of a w x w mean. Patches drawn under a low code k say where
in the image that code's appearance recurs, p(s | k). EM then finds the class of each position, p(l | s), such that the
classes under a code come in the proportions p(l | k) of a table.

    labels, probs = super_resolve(image, low_codes, load_table("configs/tables/nlcd_low2high.yaml"))
"""

import torch
import torch.nn.functional as F

from runtime.errors import Refused, naming, require
from runtime.files import read_yaml
from runtime.labels import IGNORE

INVERSE_VARIANCE, EPS, ITERATIONS = 100.0, 1e-11, 20  # of ref. 20
NO_CODE = -(2**63)  # of a pixel without a low code: below any code of a label
# Positions times patches at once: 16 MB stay in a CPU's cache. 64 patches at once take 1.4 times as long at 512 px.
BATCH_VALUES = 2**22


@torch.no_grad()
def super_resolve(image, low_codes, table, *, patches=20_000, patch_px=7, seed=0):
    """Infer high-resolution labels of one tile.

    image:     (K, H, W) float in [0, 1]
    low_codes: (H, W) integer, the low code over each pixel
    table:     {low code: C probabilities}; a row of zeros, like NO_CODE, says nothing: no patch is drawn there [ours]
    returns:   labels (H, W) int64 and p(l | s) (C, H, W) float32; labels of 0, all probabilities equal, where no pixel
               has a known code
    raises:    Refused if low_codes holds a code without a row
    """
    low_codes = low_codes.long()
    generator = torch.Generator().manual_seed(seed)  # on the CPU: the same draws on every device
    centres = draw_centres(low_codes, known_codes(low_codes, table), patches, patch_px, generator)
    centre_codes = low_codes[centres[:, 0], centres[:, 1]]
    # Only codes under which a patch was drawn take part [differs: in ref. 20 step p(s | k) lifts the empty rows of all
    # other codes to full weight].
    codes = centre_codes.unique().tolist()
    counts = count_positions(image, centres, centre_codes, codes, patch_px)
    num_classes = len(next(iter(table.values())))
    rows = torch.tensor([[float(value) for value in table[code]] for code in codes]).view(len(codes), num_classes)
    start = 10 + torch.rand(num_classes, *low_codes.shape, generator=generator)  # uniform(10, 11)
    probs = fit_classes(position_given_code(counts), rows.to(image.device), start.to(image.device))
    return probs.argmax(0), probs


def known_codes(low_codes, table):
    """The codes of a tile that say something about classes."""
    values, pixels = low_codes.unique(return_counts=True)
    found = {code: n for code, n in zip(values.tolist(), pixels.tolist(), strict=True) if code != NO_CODE}
    missing = ", ".join(f"{code} ({n} px)" for code, n in found.items() if code not in table)
    require(not missing, f"the table has no row for low code {missing}; it has {', '.join(map(str, sorted(table)))}")
    return [code for code in found if sum(table[code]) > 0]


def draw_centres(low_codes, codes, patches, patch_px, generator):
    """Centres of random patches that fit, uniform and with replacement over pixels of these codes: (patches, 2) int64,
    row and column; (0, 2) where no pixel has such a code."""
    half = patch_px // 2
    inner = low_codes[half : low_codes.shape[0] - half, half : low_codes.shape[1] - half]
    candidates = torch.isin(inner, torch.tensor(codes, dtype=inner.dtype, device=inner.device)).nonzero() + half
    drawn = torch.randint(max(len(candidates), 1), (patches if len(candidates) else 0,), generator=generator)
    return candidates[drawn.to(candidates.device)]


def count_positions(image, centres, centre_codes, codes, patch_px):
    """How often each position explains a patch drawn under each code: the sum over its patches of the posterior over
    positions, (codes, H, W) float32.

    image: (K, H, W); centres: (N, 2); centre_codes: (N,); codes: list of the codes to count
    """
    height, width = image.shape[1:]
    batch = max(1, min(64, BATCH_VALUES // (height * width)))
    offset = torch.arange(patch_px, device=image.device) - patch_px // 2
    # Likelihoods see differences only: less the mean, numbers are small and float32 (TF32 on a GPU) is exact enough.
    image = image.float() - image.float().mean((1, 2), keepdim=True)
    padded, energy = wrap_image(image, patch_px)
    counts = image.new_zeros(len(codes), height, width)
    for count, code in zip(counts, codes, strict=True):
        own = centres[centre_codes == code]
        for first in range(0, len(own), batch):
            rows, cols = own[first : first + batch].T
            drawn = image[:, rows[:, None, None] + offset[:, None], cols[:, None, None] + offset]  # (K, B, w, w)
            # Softmax over s without its shift: the largest value is 0, that of a patch at its own centre. A tile takes
            # 10 to 30 % longer on a CPU with .softmax(), and 40 % with new memory for each result.
            likelihood = log_likelihood(padded, energy, drawn.transpose(0, 1))
            posterior = likelihood.div_(patch_px**2).exp_().flatten(1)  # (B, H W)
            count += (posterior.sum(1).reciprocal() @ posterior).view(height, width)
    return counts


def wrap_image(image, patch_px):
    """The image wrapped round by half a patch, (1, K, H + w - 1, W + w - 1), and A(s), (H, W)."""
    padded = F.pad(image[None], [patch_px // 2] * 4, mode="circular")
    energy = F.avg_pool2d(INVERSE_VARIANCE * padded.square().sum(1), patch_px, stride=1)[0] * patch_px**2
    return padded, energy


def log_likelihood(padded, energy, patches):
    """-v/2 times the squared difference of patches (B, K, w, w) and the image round each position: (B, H, W)."""
    cross = F.conv2d(padded, INVERSE_VARIANCE * patches)[0]
    norm = INVERSE_VARIANCE * patches.square().sum((1, 2, 3))
    return cross.sub_(energy / 2).sub_(norm[:, None, None] / 2)


def position_given_code(counts):
    """p(s | k), (codes, H, W), from counts of that shape: each code's share at a position, then normalised over s."""
    share = counts + EPS
    share /= share.sum(0)
    return share.div_(share.sum((1, 2), keepdim=True))


def fit_classes(position_given_code, rows, start):
    """p(l | s), (C, H, W), by EM, code by code, so that q(s, k, l) never stands in memory whole.

    position_given_code: (codes, H, W); rows: (codes, C), p(l | k); start: (C, H, W), positive, need not be normalised
    """
    probs = start / start.sum(0)
    for _ in range(ITERATIONS):
        update = torch.full_like(probs, EPS)
        for position, row in zip(position_given_code, rows, strict=True):
            q = (probs * position).add_(EPS)  # E: for each class of this code, over positions
            update.addcmul_(q, (row / q.sum((1, 2)))[:, None, None])  # M
        probs = update.div_(update.sum(0))
    return probs


def add_counts(counts, high, low_codes, num_classes):
    """Count high classes, (H, W) merged, under each low code, (H, W); `counts`, {code: (C,) int64}, grows in place."""
    labelled = (high != IGNORE) & (low_codes != NO_CODE)
    codes, row = low_codes[labelled].unique(return_inverse=True)
    pairs = (row * num_classes + high[labelled]).bincount(minlength=len(codes) * num_classes).view(-1, num_classes)
    for code, pair_counts in zip(codes.tolist(), pairs.cpu(), strict=True):
        counts[code] = counts.get(code, 0) + pair_counts


def load_table(path, classes=None):
    """Read {code: p(l | code), a list} from YAML. raises: Refused if it is malformed or not over these class names"""
    table = read_yaml(path)
    with naming(path, "should hold `classes: [names]` and rows `code: [probabilities]`: "):
        names = table.pop("classes")
        table.pop("deviations", None)  # of other rows: beyond/region_losses.py
        if classes is not None and names != list(classes):
            raise Refused(f"{path}: classes are {names}; the tile set has {list(classes)}")
        for code, row in table.items():
            sums = sum(row) == 0 or abs(sum(row) - 1) < 0.02
            if type(code) is not int or len(row) != len(names) or min(row) < 0 or not sums:
                raise ValueError(f"row {code} is {row}; it needs {len(names)} probabilities that sum to 1, or to 0")
    return {code: [value / (sum(row) or 1) for value in row] for code, row in table.items()}
