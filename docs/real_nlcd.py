"""Real NLCD against models of what its codes say, without images (docs/results.md).

    python docs/real_nlcd.py REAL_DIR

REAL_DIR holds pairs of fine labels and NLCD that was warped to their pixels: chesapeake/*_lc.tif, *_nlcd.tif (1 m,
Chesapeake codes) and chesapeake_2m/lc.tif, nlcd.tif (2 m, merged classes). The true cells are found anew: borders
between codes lie on a tilted lattice. Each part is scored by models fitted on all others: the mean of log p(code) over
its cells, given their composition. Parts are the 1 m patches and the quarters of the 2 m tile.

--publish writes configs/tables/nlcd_observation.yaml, the table for places without a coarse map of their own, anew: the
model fitted to cells drawn from what is published of each code, its mean shares of the classes and their deviation.
"""

import argparse
import math
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from beyond.observation import FLOOR, Observation, fit, merged_table  # noqa: E402
from beyond.table import from_yaml, table_to_yaml, to_plain
from data import tile_io  # noqa: E402
from data.cells import Cells, region_index, region_labels  # noqa: E402
from data.taxonomy import load_taxonomy, merge  # noqa: E402
from models.epitomes import load_table  # noqa: E402
from runtime import command  # noqa: E402

TAXONOMY = Path(__file__).resolve().parent.parent / "configs" / "taxonomies" / "low2high.yaml"
PUBLISHED = TAXONOMY.parent.parent / "tables" / "nlcd_observation.yaml"
SHARES = PUBLISHED.with_name("nlcd_low2high.yaml")  # p(class | code), published: its source stands there
DEVIATIONS = {  # of the same from cell to cell: data/nlcd_sigma.txt of the same source
    11: (0.15, 0.06, 0.06, 0.13),
    21: (0.05, 0.34, 0.33, 0.13),
    22: (0.06, 0.24, 0.21, 0.18),
    23: (0.07, 0.17, 0.19, 0.22),
    24: (0.07, 0.07, 0.14, 0.17),
    31: (0.26, 0.26, 0.41, 0.40),
    41: (0.03, 0.19, 0.16, 0.07),
    42: (0.03, 0.18, 0.16, 0.05),
    43: (0.05, 0.18, 0.15, 0.06),
    52: (0.05, 0.35, 0.33, 0.09),
    71: (0.09, 0.40, 0.39, 0.18),
    81: (0.02, 0.21, 0.23, 0.09),
    82: (0.03, 0.22, 0.24, 0.09),
    90: (0.07, 0.22, 0.21, 0.03),
    95: (0.21, 0.22, 0.29, 0.05),
}
CELL_M = 30.0
TILTS = np.radians(np.arange(6, 16.1, 0.5))  # of the Albers grid against UTM, in the eastern United States
CLASSES = 4


def main(folder):
    parts = read_parts(folder)
    codes = sorted({code for _, found in parts for code in found.tolist()})
    merged = load_taxonomy(TAXONOMY).low
    classes = [merged[code] for code in codes]
    everywhere = np.concatenate([found for _, found in parts])
    print("cells:", ", ".join(f"{code} {int((everywhere == code).sum())}" for code in codes))
    scores = {}
    for held, (shares, found) in enumerate(parts):
        others = [part for i, part in enumerate(parts) if i != held]
        fitted = np.concatenate([s for s, _ in others]), np.concatenate([f for _, f in others])
        rows = [torch.tensor([codes.index(code) for code in f.tolist()]) for f in (fitted[1], found)]
        for name, log_probs in models(torch.tensor(fitted[0]), rows[0], torch.tensor(shares), codes, classes).items():
            scores.setdefault(name, []).append(log_probs[range(len(found)), rows[1]].numpy())
    sizes = [len(found) for _, found in parts]
    print(f"{len(parts)} parts of {sizes} cells; mean log p(code), of each part by what was fitted on the others")
    print(f"{'':<34}{'all cells':>10}{'2 m parts':>10}{'1 m parts':>10}{'wins':>6}")
    best = [part.mean() for part in scores["observation model"]]
    fine = sum(size for size, (_, _) in zip(sizes[:-4], parts[:-4], strict=True))
    for name, each in scores.items():
        flat = np.concatenate(each)
        wins = sum(b > part.mean() for b, part in zip(best, each, strict=True))
        means = flat.mean(), flat[fine:].mean(), flat[:fine].mean()
        print(f"{name:<34}" + "".join(f"{mean:10.3f}" for mean in means) + (f"{wins:6d}" if wins else ""))


def models(shares, rows, asked, codes, classes):
    """{name: (N, K) log-probabilities of the codes of cells of compositions `asked`}, each from (shares, rows).

    Counts begin at a half, so that a code that the fitted parts lack has some probability by each of the models.
    """
    counts = torch.bincount(rows, minlength=len(codes)).double() + 0.5
    given = torch.zeros(len(codes), CLASSES, dtype=torch.float64).index_add(0, rows, shares)  # sums of compositions
    given += 0.5 * torch.nn.functional.one_hot(torch.tensor(classes), CLASSES)
    class_given_code = (given + FLOOR) / (given + FLOOR).sum(dim=1, keepdim=True)  # p(l | code)
    joint = class_given_code * counts[:, None]
    code_given_class = joint / joint.sum(dim=0)  # p(code | l), by Bayes
    bayes = counts.log() + asked @ class_given_code.log().T  # as if a cell were one draw of classes
    weight, bias = merged_table(classes, counts, CLASSES)
    merge_alone = Observation(codes, classes, weight, bias)
    fitted = fit(shares, rows, codes, classes)
    published = from_yaml(PUBLISHED, load_taxonomy(TAXONOMY).names)
    of_published = published(asked.T[None])[0, [published.names.index(code) for code in codes]].T
    merged_rows = torch.tensor(classes)[rows]
    by_class = fit(shares, merged_rows, list(range(CLASSES)), list(range(CLASSES)))(asked.T[None])[0, :CLASSES].T
    within = (counts / torch.zeros(CLASSES).double().index_add(0, torch.tensor(classes), counts)[classes]).log()
    return {
        "codes' shares": (counts / counts.sum()).log().expand(len(asked), -1),
        "the merge alone": merge_alone(asked.T[None])[0, : len(codes)].T,
        "p(l | code) inverted, per pixel": (asked @ code_given_class.T).clamp(min=1e-9).log(),
        "p(l | code) inverted, per cell": bayes.log_softmax(dim=1),
        "published shares, priors fitted": (of_published + (counts / counts.sum()).log()).log_softmax(dim=1),
        "observation model, merged classes": by_class[:, classes] + within,
        "observation model": fitted(asked.T[None])[0, : len(codes)].T,
    }


def published_table():
    """The Observation of what is published, all codes as frequent: 1,000 cells of each, from the Dirichlet distribution
    that has its mean shares and, over all classes, its variance."""
    rng, taxonomy, means = np.random.default_rng(0), load_taxonomy(TAXONOMY), load_table(SHARES)
    shares = []
    for code, deviation in DEVIATIONS.items():
        mean = np.maximum(means[code], 0.005)
        concentration = (mean * (1 - mean)).sum() / np.square(deviation).sum() - 1
        shares.append(rng.dirichlet(mean * max(concentration, 0.2), 1000))
    rows = torch.arange(len(DEVIATIONS)).repeat_interleave(1000)
    classes = [taxonomy.low[code] for code in DEVIATIONS]
    return fit(torch.tensor(np.concatenate(shares)), rows, list(DEVIATIONS), classes)


def publish():
    head = (
        "# What NLCD's codes say of their cells, for supervision.observation where exemplar places have no coarse "
        "map;\n"
        "# fitted to what is published of each code (nlcd_low2high.yaml names the source), all as frequent. Made by:\n"
        "# python docs/real_nlcd.py --publish\n"
    )
    table = to_plain(published_table(), load_taxonomy(TAXONOMY).names)
    PUBLISHED.write_text(head + table_to_yaml(table).replace("; cells: how many the row was fitted on", ""))


def read_parts(folder):
    """[(shares (N, C), codes (N,))] of the 1 m patches, and then of the quarters of the 2 m tile."""
    taxonomy = load_taxonomy(TAXONOMY)
    parts = []
    for path in sorted((folder / "chesapeake").glob("*_nlcd.tif")):
        fine = path.with_name(path.name.replace("_nlcd", "_lc"))
        high = merge(tile_io.read(fine).pixels[..., 0], taxonomy.high, fine)
        parts.append(cells_of(high, tile_io.read(path).pixels[..., 0], 1.0))
    high, codes = (tile_io.read(folder / "chesapeake_2m" / f"{kind}.tif").pixels[..., 0] for kind in ("lc", "nlcd"))
    lattice = find_lattice(codes, 2.0)  # one for the whole tile, which shows it best
    half = len(high) // 2
    for rows in (slice(0, half), slice(half, None)):
        for cols in (slice(0, half), slice(half, None)):
            part = np.full_like(high, 255)
            part[rows, cols] = high[rows, cols]
            parts.append(cells_of(part, codes, 2.0, lattice))
    return [part for part in parts if len(part[1])]


def cells_of(high, codes, gsd, lattice=None):
    """Compositions and codes of the cells whose pixels all have a class; a cell's code is that of most pixels."""
    a, b, c, d, e, f = lattice or find_lattice(codes, gsd)
    corners = np.array([(x, y, 1) for x in (0, high.shape[1]) for y in (0, high.shape[0])]).T
    low = np.floor(np.array([(a, b, c), (d, e, f)]) @ corners).min(axis=1)
    top = np.ceil(np.array([(a, b, c), (d, e, f)]) @ corners).max(axis=1)
    shape = tuple(int(n) for n in (top - low)[::-1])
    cells = Cells(np.zeros(shape, np.uint8), (a, b, c - low[0], d, e, f - low[1]), shape)
    index, whole = region_index(cells, *high.shape), region_labels(cells, *high.shape) == 0
    shares, found = [], []
    for cell in np.flatnonzero(whole):
        inside = index == cell
        counts = np.bincount(high[inside], minlength=256)
        if not counts[255]:
            values, pixels = np.unique(codes[inside], return_counts=True)
            shares.append(counts[:CLASSES] / counts.sum())
            found.append(values[pixels.argmax()])
    return np.array(shares).reshape(-1, CLASSES), np.array(found, np.int64)


def find_lattice(codes, gsd):
    """The affine from pixels to cells on whose lines most borders between codes lie; any where there is no border.

    Tilt, pitch and place are tried on a grid, then moved step by step as long as that brings borders nearer.
    """
    rows, cols = np.nonzero(codes[:, 1:] != codes[:, :-1])
    points = [np.stack([cols + 1.0, rows + 0.5])]
    rows, cols = np.nonzero(codes[1:] != codes[:-1])
    points = np.concatenate([*points, np.stack([cols + 0.5, rows + 1.0])], axis=1)
    pitch = CELL_M / gsd

    def affine(tilt, wide, high, left, top):
        cos, sin = math.cos(tilt), math.sin(tilt)
        return cos / wide, sin / wide, left, -sin / high, cos / high, top

    def misfit(values):
        a, b, c, d, e, f = affine(*values)
        x, y = a * points[0] + b * points[1] + c, d * points[0] + e * points[1] + f
        return np.minimum(np.abs(x - np.round(x)), np.abs(y - np.round(y))).mean()

    if not points.size:
        return affine(math.radians(12.7), pitch, pitch, 0.0, 0.0)
    places = np.arange(0, 1, 0.1)
    tried = [(t, pitch, pitch, x, y) for t in (*TILTS, *-TILTS) for x in places for y in places]
    best = min(tried, key=misfit)
    steps = np.array([math.radians(0.5), 0.01 * pitch, 0.01 * pitch, 0.1, 0.1])
    while steps[3] > 1e-3:
        around = [tuple(np.add(best, sign * steps * axis)) for axis in np.eye(5) for sign in (-1, 1)]
        nearest = min(around, key=misfit)
        if misfit(nearest) < misfit(best):
            best = nearest
        else:
            steps = steps / 2
    return affine(*best)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", metavar="REAL_DIR")
    parser.add_argument("--publish", action="store_true", help="write configs/tables/nlcd_observation.yaml")
    arguments = parser.parse_args()
    if not (arguments.folder or arguments.publish):
        parser.error("name REAL_DIR or --publish")
    chosen = publish if arguments.publish else lambda: main(arguments.folder)
    command.run(chosen)
