"""Every drawing and picture of docs/ but demo.png, from the code and the runs. Needs matplotlib (requirements-dev.txt).

    python -m docs.figures [architecture regions sums blur rows pretraining]      after `make demo` and the NAIP runs

blur and sums need runs/demo alone; the others show real tiles (naip215: the tile sets in runs/naip215, its rows in
runs/tables, as `reproduce.py table2 --data runs/naip215/r? --configs configs/naip215 --out runs/tables` makes them).
"""

import itertools
import sys
from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402
from matplotlib.patches import FancyBboxPatch, Rectangle  # noqa: E402
from matplotlib.transforms import Bbox  # noqa: E402

from config import PretrainConfig  # noqa: E402
from data.cells import region_index, upsampled  # noqa: E402
from data.tiles import TileSet  # noqa: E402
from data.transforms import normalize  # noqa: E402
from figures import color_image, color_labels  # noqa: E402
from losses import cross_entropy_sum  # noqa: E402
from metrics import raggedness  # noqa: E402
from models import build_mae  # noqa: E402
from models.mae import blank, reconstruct  # noqa: E402
from models.regions import aggregate_logits  # noqa: E402
from runtime import checkpoint  # noqa: E402
from runtime.settings import config_from_flat  # noqa: E402
from trained import load_trained  # noqa: E402

DOCS = Path(__file__).resolve().parent
RUNS = DOCS.parent / "runs"
INK, GREY, BOLD = "#222222", "#777777", "#2a62a8"
BLUE, GREEN, ORANGE, PURPLE = "#dbe8f6", "#dff0dc", "#fbe6d0", "#e9e0f3"
REAL, REAL_ROWS = RUNS / "naip215/r2", RUNS / "tables/r2"
REAL_TILE, EXEMPLAR = "naip_", "naip_"  # prefixes of tile names, of which the most varied is shown
LESSON_TILE = "suburb_01259"  # of the demo's test split


@torch.no_grad()
def logits_of(run, image):
    """(C, H, W) logits of a run's best checkpoint for an image (H, W, K)."""
    return load_trained(run / "best.pt", "cpu")(torch.from_numpy(image.astype(np.int32)).permute(2, 0, 1)[None])[0]


def architecture():
    """Fig. 3 in our own way: the network, the two losses on its logits, and where its encoder comes from."""
    tiles = TileSet(REAL, "test")
    classes = tiles.description.classes()
    tile = tiles.load(named(tiles, REAL_TILE))
    heldout = TileSet(REAL, "heldout")
    exemplar = heldout.load_high(named(heldout, EXEMPLAR))
    predicted = logits_of(REAL_ROWS / "agg_app-0", tile.image).argmax(dim=0).numpy()
    mask = torch.rand(1, 256, generator=torch.Generator().manual_seed(0)).argsort(dim=1) < 192
    hidden = mask[0].view(16, 16).numpy()

    patches = np.kron(hidden, np.ones((tile.image.shape[0] // 16,) * 2))[..., None] > 0
    image, tokens = color_image(tile.image), np.where(hidden[..., None], 255, [[[198, 180, 226]]])

    top, between, bottom = "image unet unet unet logits", ".", "whole resnet up tokens vit decoder hidden"
    left = [cells(top, 70)] * 16 + [cells(between, 70)] * 3 + [cells(bottom, 70)] * 11
    right = [cells(line, 42) for line in ("sum regions low", "sargmax blur critic", "exemplar blurred critic")]
    mosaic = [[*line, ".", *right[i // 10]] for i, line in enumerate(left)]
    edges = {"left": 0.008, "right": 1, "top": 0.94, "bottom": 0.01, "wspace": 0, "hspace": 0}
    figure, axes = pyplot.subplot_mosaic(mosaic, figsize=(13, 6.2), gridspec_kw=edges)
    titles = {
        "unet": "segmenter: U-Net on ResNet-18 (Sec. 4.2)",
        "regions": "region aggregation (Sec. 4.3)",
        "blur": "adversarial learning (Sec. 4.4)",
        "vit": "before all this: self-supervised pretraining (Sec. 4.5)",
    }
    for name, ax in axes.items():
        ax.axis("off")
        ax.set_title(titles.get(name, ""), fontsize=10, weight="bold", color=INK)
    for first, last in (("unet", "unet"), ("whole", "hidden")):
        around = Bbox.union([axes[name].get_position() for name in (first, last)])
        figure.add_artist(Rectangle(around.p0, *around.size, facecolor="#f6f6f6", zorder=-1))

    # The whole image goes into the ResNet-18, and tokens are left out after it (mask_where: tokens).
    pictures = {
        "image": (image, "image\n(K, H, W)"),
        "logits": (color_labels(predicted, classes), "logits (C, H, W)\nshown by their argmax"),
        "low": (color_labels(tile.cells.labels, classes), "low label"),
        "exemplar": (color_labels(exemplar, classes), "high label from elsewhere,\nno image with it"),
        "whole": (image, "the whole image"),
        "tokens": (tokens, "75 % of its\ntokens left out"),
        "hidden": (np.where(patches, image, 255), "its masked patches"),
    }
    boxes = {
        "sum": ("sum each region\nof M (Fig. 4)", ORANGE), "regions": ("region logits\n(C, R)", "white"),
        "sargmax": ("sargmax, Eq. 3\n(1, H, W)", ORANGE), "blur": ("blur 3x3\nsigma 0.6", "white"),
        "blurred": ("blur 3x3\nsigma 0.6", "white"), "up": ("2x\nup", "white"),
        "critic": ("discriminator\nreal or made?\nhinge loss, Eq. 2", PURPLE),
        "resnet": ("ResNet-18\nembedding", BLUE),
        "vit": ("ViT on the\nvisible 25 %", PURPLE), "decoder": ("light\ndecoder", PURPLE),
    }
    part = {"unet": axes["unet"].patch, **unet(axes["unet"])}
    part |= {name: picture(axes[name], *content) for name, content in pictures.items()}
    part |= {name: box(axes[name], *content) for name, content in boxes.items()}
    figure.canvas.draw()  # boxes take the size of their text
    over = figure.add_axes((0, 0, 1, 1))
    over.axis("off")
    for flow in ("image stem", "layer4 up3", "up0 logits", "logits sum regions", "logits sargmax blur critic",
                 "exemplar blurred critic", "whole resnet up tokens vit decoder"):
        for start, end in itertools.pairwise(flow.split()):
            arrow(over, part[start], part[end], "1x1,\n2x up" if start == "up0" else "")
    arrow(over, part["regions"], part["low"], "Eq. 1", both=True)
    arrow(over, part["decoder"], part["hidden"], "MSE", both=True)
    for skip, up in zip(("stem", "layer1", "layer2", "layer3"), ("up0", "up1", "up2", "up3"), strict=True):
        arrow(over, part[skip], part[up], sides=((0.5, 1), (0.5, 1)), bend=-0.16, color=GREY, width=0.8)
    arrow(over, part["resnet"], part["unet"], "its weights start the encoder", ((0.5, 1), (0.28, 0)), -0.1, BOLD, 1.8)
    save(figure, "architecture.png")


def cells(names, width):
    """A row of a mosaic, `width` cells shared by some names."""
    return [name for name in names.split() for _ in range(width // len(names.split()))]


def unet(ax):
    """The blocks of models/unet.py, lower by depth; {name: its box}."""
    names = "stem layer1 layer2 layer3 layer4 up3 up2 up1 up0".split()
    boxes = {}
    for x, name in enumerate(names):
        depth = min(x, 8 - x)
        height = 0.75**depth
        style = {"boxstyle": "round,pad=0,rounding_size=0.06", "facecolor": GREEN if x > 4 else BLUE, "edgecolor": INK}
        boxes[name] = ax.add_patch(FancyBboxPatch((x + 0.12, -height / 2), 0.76, height, mutation_aspect=0.2, **style))
        ax.text(x + 0.5, 0, name, ha="center", va="center", fontsize=8.5, rotation=90, color=INK)
        if x <= 4:
            ax.text(x + 0.5, -0.58, f"/{2 ** (depth + 1)}", ha="center", va="center", fontsize=8, color=GREY)
    ax.set(xlim=(-0.1, 9.1), ylim=(-0.8, 0.8))
    return boxes


def regions():
    """Fig. 4 in our own way: a real tile, its cells, M, and the sum of one class's logits over each cell."""
    tiles = TileSet(REAL, "test")
    classes = tiles.description.classes()
    tile = tiles.load(named(tiles, REAL_TILE))
    size, n = tile.image.shape[0], round(tiles.description.scale)
    logits = logits_of(REAL_ROWS / "agg_app-0", tile.image)
    index = region_index(tile.cells, size, size)
    h, w = tile.cells.labels.shape
    sums = aggregate_logits(logits[None] / n**2, torch.from_numpy(index)[None].long(), h * w)[0].view(-1, h, w)
    shown = 0  # water
    figure, axes = pyplot.subplots(1, 5, figsize=(13, 3.5))
    figure.subplots_adjust(left=0.012, right=0.988, top=0.84, bottom=0.13, wspace=0.16)
    margins = logits[shown] - logits[[c for c in range(len(classes)) if c != shown]].amax(dim=0)
    region_margins = sums[shown] - sums[[c for c in range(len(classes)) if c != shown]].amax(dim=0)
    axes[0].imshow(color_image(tile.image))
    axes[1].imshow(np.where((index // w + index % w) % 2, 0.93, 0.8), cmap="gray", vmin=0, vmax=1)
    for at in range(h * w):
        axes[1].text(at % w * n + n / 2, at // w * n + n / 2, at, ha="center", va="center", fontsize=8.5, color=INK)
    show_signed(axes[2], margins.numpy())
    show_signed(axes[3], region_margins.numpy())
    for y, x in np.ndindex(h, w):
        value = f"{region_margins[y, x].item():.1f}"
        dark = abs(region_margins[y, x]) > 0.6 * region_margins.abs().quantile(0.98)
        axes[3].text(x, y, value, ha="center", va="center", fontsize=7.5, color="white" if dark else INK)
    axes[4].imshow(color_labels(tile.cells.labels, classes))
    titles = [
        f"image, {size} x {size} px,\nand the low label's {h} x {w} cells",
        f"region index M:\neach pixel's cell (n = {n})",
        f"logit of {classes[shown]['name']} minus the\nlargest other, at each pixel",
        f"the same, of the sums of x = u / n²\nover each cell's {n * n:,} px",
        "low label: what Eq. 1\nasks the sums to say",
    ]
    for i, (ax, title) in enumerate(zip(axes, titles, strict=True)):
        ax.set_title(title, fontsize=10, color=INK)
        ax.set_xticks([])
        ax.set_yticks([])
        step, offset = (n, -0.5) if i < 3 else (1, -0.5)
        for k in range(1, h):
            for line in (ax.axhline, ax.axvline):
                line(k * step + offset, color="white" if i in (0, 4) else "#999999", linewidth=0.7)
    for a, b, word in ((1, 2, ""), (2, 3, "sum"), (3, 4, "Eq. 1")):
        if word:
            left, right = axes[a].get_position().x1, axes[b].get_position().x0
            figure.text((left + right) / 2, 0.53, word, ha="center", fontsize=9)
            figure.text((left + right) / 2, 0.46, "→" if word == "sum" else "↔", ha="center", fontsize=13)
    legend(figure, classes)
    save(figure, "regions.png")


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
    mae = build_mae(config, state["data"]["bands"])
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


def box(ax, text, color):
    style = {"boxstyle": "round,pad=0.8", "facecolor": color, "edgecolor": INK, "linewidth": 0.9}
    return ax.text(0.5, 0.5, text, ha="center", va="center", fontsize=8.5, color=INK, bbox=style).get_bbox_patch()


def picture(ax, pixels, caption):
    image = ax.imshow(pixels, extent=(0, 1, 0, 1), interpolation="nearest")
    ax.add_patch(Rectangle((0, 0), 1, 1, fill=False, edgecolor=INK, linewidth=0.9))
    ax.text(0.5, -0.06, caption, ha="center", va="top", fontsize=8.5, color=INK)
    ax.set(xlim=(-0.2, 1.2), ylim=(-0.2, 1.2))  # air between a picture and its neighbours
    return image


def arrow(ax, start, end, text="", sides=((1, 0.5), (0, 0.5)), bend=0.0, color=INK, width=1.2, both=False):
    """From one artist to another, on an `ax` over all of the figure; sides: where on each, (across, up) from 0 to 1."""
    style = {"arrowstyle": f"{'<|' if both else ''}-|>,head_width=2.4,head_length=4", "mutation_scale": 1,
             "color": color, "linewidth": width, "shrinkA": 2, "shrinkB": 2, "connectionstyle": f"arc3,rad={bend}"}
    ax.annotate("", sides[1], sides[0], end, start, arrowprops=style, annotation_clip=False)
    boxes = start.get_window_extent(), end.get_window_extent()
    at = [box.p0 + box.size * side for box, side in zip(boxes, sides, strict=True)]
    (x0, y0), (x1, y1) = ax.transAxes.inverted().transform(at)
    offset, align = ((0, 4), "center") if abs(x1 - x0) > abs(y1 - y0) else ((6, -6), "left")
    middle = (x0 + x1) / 2, (y0 + y1) / 2
    ax.annotate(text, middle, offset, textcoords="offset points", ha=align, fontsize=8, color=color)


def legend(figure, classes):
    handles = [Rectangle((0, 0), 1, 1, facecolor=np.array(c["color"]) / 255, edgecolor=INK) for c in classes]
    names = [c["name"] for c in classes]
    figure.legend(handles, names, loc="lower center", ncols=len(names), frameon=False, fontsize=9.5, handlelength=1.2)


def save(figure, name):
    figure.savefig(DOCS / name, dpi=110)
    pyplot.close(figure)
    Image.open(DOCS / name).convert("RGB").quantize(256).save(DOCS / name, optimize=True)  # a third of the size
    print(f"docs/{name}: {(DOCS / name).stat().st_size // 1024} KiB")


DRAWINGS = {f.__name__: f for f in (architecture, regions, blur, sums, rows, pretraining)}

if __name__ == "__main__":
    for word in sys.argv[1:] or DRAWINGS:
        DRAWINGS[word]()
