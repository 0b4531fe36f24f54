"""The pictures of docs/lesson.md, from the code and the runs. Needs matplotlib (requirements-dev.txt).

    python -m docs.plots [sums blur rows pretraining zoo few]      after `python reproduce.py demo` and the NAIP runs

blur and sums need runs/demo alone; rows and pretraining show real tiles (naip215: the tile sets in runs/naip215, its
rows in runs/tables, as `reproduce.py table2 --data runs/naip215/r? --configs configs/naip215 --out runs/tables` makes
them). zoo reads runs/lesson/zoo.json, and few runs/few/scores-*.json (docs/few_labels.py).
"""

import json
import sys
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402
from matplotlib.patches import Rectangle  # noqa: E402

from config import PretrainConfig  # noqa: E402
from data.cells import region_index, upsampled  # noqa: E402
from data.tiles import TileSet  # noqa: E402
from data.transforms import normalize  # noqa: E402
from losses import cross_entropy_sum  # noqa: E402
from metrics import raggedness  # noqa: E402
from models import MaskedAutoencoder  # noqa: E402
from models.mae import blank, reconstruct  # noqa: E402
from models.regions import aggregate_logits  # noqa: E402
from reports.figures import color_image, color_labels  # noqa: E402
from runtime import checkpoint  # noqa: E402
from runtime.settings import config_from_flat  # noqa: E402
from trained import load_trained  # noqa: E402

DOCS = Path(__file__).resolve().parent
RUNS = DOCS.parent / "runs"
INK = "#222222"
REAL, REAL_ROWS = RUNS / "naip215/r2", RUNS / "tables/r2"
REAL_TILE = "naip_"  # a prefix of tile names, of which the most varied is shown
LESSON_TILE = "suburb_01259"  # of the demo's test split


@torch.no_grad()
def logits_of(run, image):
    """(C, H, W) logits of a run's best checkpoint for an image (H, W, K)."""
    return load_trained(run / "best.pt", "cpu")(torch.from_numpy(image.astype(np.int32)).permute(2, 0, 1)[None])[0]


def blur():
    """Why Low blurs: what it is told, what it says, and how sure it is."""
    tiles = TileSet(RUNS / "demo/tiles", "test")
    classes = tiles.description.classes()
    tile = tiles.load(index_of(tiles, LESSON_TILE))
    size = tile.image.shape[0]
    told = upsampled(tile.cells, size, size)
    probs = logits_of(RUNS / "demo/low-0", tile.image).softmax(dim=0).numpy()
    panels = [color_image(tile.image), *(color_labels(m, classes) for m in (tile.high, told, probs.argmax(axis=0)))]
    titles = ["image", "high label: what is there", "low label: what Low is told", "what Low says"]
    figure, _ = panels_of(panels, titles, 6)
    bars = figure.add_axes((0.735, 0.2, 0.25, 0.66))
    shares = np.zeros((len(classes), len(classes)))
    for i in range(len(tiles)):
        other = tiles.load(i)
        told, both = upsampled(other.cells, size, size), other.high < 255
        np.add.at(shares, (other.high[both], told[both]), 1)
    shares = 100 * shares / shares.sum(axis=1, keepdims=True)
    left = np.zeros(len(classes))
    for c, entry in enumerate(classes):
        color = np.array(entry["color"]) / 255
        bars.barh(range(len(classes)), shares[:, c], left=left, color=color, edgecolor="white", height=0.7)
        left += shares[:, c]
    for c in range(len(classes)):
        middle = shares[c, :c].sum() + shares[c, c] / 2
        bars.text(middle, c, f"{shares[c, c]:.0f} %", ha="center", va="center", color="white", weight="bold")
    bars.set(yticks=range(len(classes)), yticklabels=[c["name"] for c in classes], xticks=[], xlim=(0, 100))
    bars.invert_yaxis()
    bars.spines[:].set_visible(False)
    bars.tick_params(length=0, labelsize=9)
    bars.set_title("what pixels of a class are told (test split)", fontsize=10, color=INK)
    legend(figure, classes)
    save(figure, "lesson_blur.png")


def sums():
    """What aggregation cannot know: four maps that Eq. 1 cannot tell apart."""
    tiles = TileSet(RUNS / "demo/tiles", "test")
    classes = tiles.description.classes()
    tile = tiles.load(index_of(tiles, LESSON_TILE))
    size = tile.image.shape[0]
    logits = logits_of(RUNS / "demo/agg-0", tile.image)
    index = torch.from_numpy(region_index(tile.cells, size, size)).long().flatten()
    versions = rearranged(logits.flatten(1), index)
    labels = torch.from_numpy(tile.cells.labels.ravel())[None]
    titles = ["image", "high label"]
    panels = [color_image(tile.image), color_labels(tile.high, classes)]
    names = ["Agg's own map", "its pixels shuffled\nwithin each cell", "its pixels sorted\nwithin each cell"]
    names.append("each cell's mean\nlogits everywhere")
    for name, version in zip(names, versions, strict=True):
        sums = cell_sums(version / tiles.description.scale**2, index)
        loss = cross_entropy_sum(sums, labels).item() / labels.numel()
        titles.append(f"{name}\nloss {loss:.4f}")
        panels.append(color_labels(version.argmax(dim=0).view(size, size).numpy(), classes))
    figure, axes = panels_of(panels, titles, 6)
    n = round(tiles.description.scale)
    for ax in axes[2:]:
        for at in range(n, size, n):
            ax.axhline(at - 0.5, color="white", linewidth=0.4)
            ax.axvline(at - 0.5, color="white", linewidth=0.4)
    legend(figure, classes)
    save(figure, "lesson_sums.png")


def rows():
    """A made-up and a real tile under four rows, and how ragged the maps of each are over the test split."""
    runs = {"Low": "low-0", "Agg": "agg-0", "Agg+App": "agg_app-0", "High": "high-0"}
    figure, axes = pyplot.subplots(2, 6, figsize=(13, 5.6))
    figure.subplots_adjust(left=0.008, right=0.992, top=0.91, bottom=0.06, wspace=0.06, hspace=0.24)
    demo = RUNS / "demo/tiles", RUNS / "demo", LESSON_TILE
    for line, (root, folder, prefix) in zip(axes, (demo, (REAL, REAL_ROWS, REAL_TILE)), strict=True):
        tiles = TileSet(root, "test")
        classes, i = tiles.description.classes(), named(tiles, prefix)
        images = [tiles.load(j, high=False, low=False).image for j in range(len(tiles))]
        maps = {"high label": [tiles.load_high(j) for j in range(len(tiles))]}
        for name, run in runs.items():
            trained = load_trained(folder / run / "best.pt", "cpu")
            maps[name] = [map_of(trained, image) for image in images]
        panels = [color_image(images[i]), *(color_labels(of[i], classes) for of in maps.values())]
        ragged = {name: 100 * raggedness(torch.from_numpy(np.stack(of))) for name, of in maps.items()}
        titles = ["image", *(f"{name}\n{share:.1f} % borders" for name, share in ragged.items())]
        for ax, panel, title in zip(line, panels, titles, strict=True):
            show(ax, panel, title)
    legend(figure, classes)
    save(figure, "lesson_rows.png")


@torch.no_grad()
def map_of(trained, image):
    return trained(torch.from_numpy(image.astype(np.int32)).permute(2, 0, 1)[None])[0].argmax(dim=0).numpy()


def pretraining():
    """What a masked autoencoder fills in, on validation tiles of real NAIP."""
    state = checkpoint.load(REAL_ROWS / "mae-0/last.pt")
    config = config_from_flat(PretrainConfig, state["config"])
    mae = MaskedAutoencoder(state["data"]["bands"], config.model.width, **asdict(config.mae))
    mae.load_state_dict(state["mae"])
    tiles = TileSet(REAL, "validation")
    mean, std = (torch.tensor(state["data"][key]) for key in ("band_mean", "band_std"))
    panels, titles = [], []
    for i in (0, len(tiles) // 2):
        image = torch.from_numpy(tiles.load(i, False, False).image.astype(np.int32)).permute(2, 0, 1)[None]
        crop = normalize(image, mean, std)
        with torch.no_grad():
            _, predicted, mask = mae.eval()(crop, torch.rand(1, 256, generator=torch.Generator().manual_seed(i)))
        stored = [(m[0] * std.view(-1, 1, 1) + mean.view(-1, 1, 1)).permute(1, 2, 0).numpy()
                  for m in (crop, blank(crop, mask), reconstruct(crop, predicted, mask))]
        panels += [color_image(picture, like=stored[0]) for picture in stored]
        titles += ["image", "what is left", "filled in"]
    figure, _ = panels_of(panels, titles, 6)
    save(figure, "lesson_pretraining.png")


def zoo():
    """Region losses beside each other: mIoU and border F1 of runs that differ in one setting."""
    rows = json.loads((RUNS / "lesson/zoo.json").read_text())["rows"]
    rows = sorted(rows, key=lambda row: row["miou"])
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 0.42 * len(rows) + 0.9), sharey=True)
    for ax, key, title in zip(axes, ("miou", "border_f1"), ("mIoU, percent", "F1 of borders, percent"), strict=True):
        values = [100 * row[key] for row in rows]
        ax.barh(range(len(rows)), values, color="#4477aa", height=0.65)
        for i, value in enumerate(values):
            ax.text(value - 0.6, i, f"{value:.1f}", ha="right", va="center", color="white", fontsize=9)
        ax.set(yticks=range(len(rows)), yticklabels=[row["name"] for row in rows])
        ax.set_title(title, fontsize=10, color=INK)
        ax.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    save(figure, "zoo.png")


def few():
    """A label curve: Agg+App and Ours against the number of labelled tiles, each seed as a dot."""
    scores = defaultdict(lambda: defaultdict(list))
    for path in sorted((RUNS / "few").glob("scores-*-*.json")):
        for row in json.loads(path.read_text())["rows"]:
            scores[row["name"]][int(path.stem.split("-")[1])].append((100 * row["miou"], 100 * row["border_f1"]))
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.2))
    # Told apart by the colour-blind, by form, and by marks that stand side by side.
    looks = {"Agg+App": ("#ee6677", "o", 0.95), "Ours": ("#4477aa", "s", 1.05)}
    for i, (ax, title) in enumerate(zip(axes, ("mIoU, percent", "F1 of borders, percent"), strict=True)):
        for name, (color, form, aside) in looks.items():
            counts = sorted(scores[name])
            means = [np.mean([seed[i] for seed in scores[name][n]]) for n in counts]
            ax.plot(counts, means, color=color, label=name)
            for n in counts:
                values = [seed[i] for seed in scores[name][n]]
                ax.plot([aside * n] * len(values), values, form, color=color, ms=4)
        ax.set(xscale="log", xticks=counts, xticklabels=counts, xlabel="training tiles with coarse labels")
        ax.minorticks_off()
        ax.set_title(title, fontsize=10, color=INK)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False)
    figure.tight_layout()
    save(figure, "few_labels.png")


def rearranged(flat, index):
    """Logits (C, N) and the cell of each of the N pixels -> four maps of the same sums: as they are, shuffled within
    each cell, sorted there by their class, and the cell's mean everywhere."""
    generator = torch.Generator().manual_seed(0)
    shuffled, in_order, level = flat.clone(), flat.clone(), flat.clone()
    for cell in index.unique():
        inside = (index == cell).nonzero().flatten()
        shuffled[:, inside] = flat[:, inside[torch.randperm(len(inside), generator=generator)]]
        in_order[:, inside] = flat[:, inside[flat[:, inside].argmax(dim=0).argsort(stable=True)]]
        level[:, inside] = flat[:, inside].mean(dim=1, keepdim=True)
    return [flat, shuffled, in_order, level]


def cell_sums(flat, index):
    """(C, H W) logits and (H W,) cells -> (1, C, R), by the code that trains."""
    return aggregate_logits(flat[None, :, None], index.view(1, 1, -1), int(index.max()) + 1)


def panels_of(panels, titles, columns):
    figure, axes = pyplot.subplots(1, columns, figsize=(13, 3.1))
    figure.subplots_adjust(left=0.008, right=0.992, top=0.82, bottom=0.1, wspace=0.06)
    for ax in axes[len(panels):]:
        ax.remove()
    for ax, panel, title in zip(axes, panels, titles, strict=False):
        show(ax, panel, title)
    return figure, axes


def show(ax, panel, title):
    ax.imshow(panel, interpolation="nearest")
    ax.set_title(title, fontsize=9.5, color=INK)
    ax.axis("off")


def index_of(tiles, name):
    return [row["tile"] for row in tiles.rows].index(name)


def show_signed(ax, values):
    top = np.percentile(np.abs(values), 98)
    ax.imshow(values, cmap="PuOr_r", vmin=-top, vmax=top)


def named(tiles, prefix):
    """The first tile of these with the most classes in its label."""
    own = [i for i, row in enumerate(tiles.rows) if row["tile"].startswith(prefix)]
    return max(own, key=lambda i: entropy(tiles.load_high(i)))


def entropy(labels):
    share = np.bincount(labels.ravel())[:4] / labels.size  # holes lower it
    return -(share[share > 0] * np.log(share[share > 0])).sum()


def legend(figure, classes):
    handles = [Rectangle((0, 0), 1, 1, facecolor=np.array(c["color"]) / 255, edgecolor=INK) for c in classes]
    names = [c["name"] for c in classes]
    figure.legend(handles, names, loc="lower center", ncols=len(names), frameon=False, fontsize=9.5, handlelength=1.2)


def save(figure, name):
    figure.savefig(DOCS / name, dpi=110)
    pyplot.close(figure)
    Image.open(DOCS / name).convert("RGB").quantize(256).save(DOCS / name, optimize=True)  # a third of the size
    print(f"docs/{name}: {(DOCS / name).stat().st_size // 1024} KiB")


DRAWINGS = {f.__name__: f for f in (blur, sums, rows, pretraining, zoo, few)}

if __name__ == "__main__":
    for word in sys.argv[1:] or DRAWINGS:
        DRAWINGS[word]()
