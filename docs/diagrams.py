"""The diagrams of the method (Fig. 3), of region aggregation (Fig. 4) and of NLCD's tilted cells. Needs matplotlib.

    python -m docs.diagrams architecture regions                        after the NAIP runs, as docs/plots.py says
    LOW2HIGH_REAL=REAL_DIR python -m docs.diagrams tilted_cells         REAL_DIR as docs/real_nlcd.py reads it
"""

import itertools
import os
import sys
from pathlib import Path

import matplotlib
import numpy as np
import torch

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402
from matplotlib.patches import FancyBboxPatch, Rectangle  # noqa: E402
from matplotlib.transforms import Bbox  # noqa: E402

from data import tile_io  # noqa: E402
from data.cells import invert, move, region_index  # noqa: E402
from data.tiles import TileSet  # noqa: E402
from docs.plots import INK, REAL, REAL_ROWS, REAL_TILE, legend, logits_of, named, save, show_signed  # noqa: E402
from docs.real_nlcd import find_lattice  # noqa: E402
from models.regions import aggregate_logits  # noqa: E402
from reports.figures import color_image, color_labels  # noqa: E402

GREY, BOLD = "#777777", "#2a62a8"
BLUE, GREEN, ORANGE, PURPLE = "#dbe8f6", "#dff0dc", "#fbe6d0", "#e9e0f3"
EXEMPLAR = "naip_"  # a prefix of tile names, of which the most varied is shown
PATCH = "chesapeake/m_3708020_sw_17_1_0"  # 256 m of West Virginia: NAIP at 1 m, and NLCD warped to its pixels
NLCD = {  # names and colours that differ in lightness too
    21: ("21 developed, open space", "#cc79a7"), 22: ("22 developed, low intensity", "#882255"),
    41: ("41 deciduous forest", "#11603f"), 81: ("81 pasture", "#f5ec9a"), 82: ("82 crops", "#e69f00"),
}


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
        "unet": "Segmenter: U-Net on ResNet-18 (Sec. 4.2)",
        "regions": "Region aggregation, Agg (Sec. 4.3)",
        "blur": "Discriminator, App (Sec. 4.4)",
        "vit": "Pretraining, Pre: a masked autoencoder (Sec. 4.5)",
    }
    for name, ax in axes.items():
        ax.axis("off")
        pad = -10 if name == "blur" else None  # clear of the caption above
        ax.set_title(titles.get(name, ""), fontsize=10, weight="bold", color=INK, pad=pad)
    for first, last in (("unet", "unet"), ("whole", "hidden")):
        around = Bbox.union([axes[name].get_position() for name in (first, last)])
        figure.add_artist(Rectangle(around.p0, *around.size, facecolor="#f6f6f6", zorder=-1))

    # The whole image goes into the ResNet-18, and tokens are left out after it (mask_where: tokens).
    pictures = {
        "image": (image, "image\n(K, H, W)"),
        "logits": (color_labels(predicted, classes), "logits u (C, H, W)\nshown by their argmax"),
        "low": (color_labels(tile.cells.labels, classes), "coarse label (low)"),
        "exemplar": (color_labels(exemplar, classes), "exemplar: fine label\nof another place"),
        "whole": (image, "the whole image"),
        "tokens": (tokens, "75 % of the\ntokens left out"),
        "hidden": (np.where(patches, image, 255), "masked patches"),
    }
    boxes = {
        "sum": ("sum of u / n²\nover each cell", ORANGE), "regions": ("sums, one a cell\n(C, R)", "white"),
        "sargmax": ("index map (1, H, W)\nargmax; gradient\nof sargmax, Eq. 3", ORANGE),
        "blur": ("blur 3x3\nsigma 0.6", "white"), "blurred": ("blur 3x3\nsigma 0.6", "white"),
        "up": ("2x\nup", "white"),
        "critic": ("discriminator:\nreal or made?\nEq. 2, hinge loss", PURPLE),
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
    figure.subplots_adjust(left=0.012, right=0.988, top=0.84, bottom=0.13, wspace=0.2)
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
        axes[3].text(x, y, value, ha="center", va="center", fontsize=7, color="white" if dark else INK)
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


def tilted_cells():
    """Real NLCD over real NAIP: the codes' borders show the tilted cells, which blocks of pixels cut."""
    place = Path(os.environ["LOW2HIGH_REAL"]) / PATCH
    image, codes = (tile_io.read(f"{place}_{kind}.tif").pixels for kind in ("naip-new", "nlcd"))
    codes = codes[..., 0]
    size, lattice = len(codes), find_lattice(codes, 1.0)
    colors = np.zeros((*codes.shape, 3))
    for code, (_, color) in NLCD.items():
        colors[codes == code] = matplotlib.colors.to_rgb(color)
    figure, axes = pyplot.subplots(1, 3, figsize=(13, 4.9))
    figure.subplots_adjust(left=0.008, right=0.992, top=0.87, bottom=0.09, wspace=0.03)
    tilted = [(invert(lattice), 0, "white")] * 2
    for ax, picture, (to_px, shift, color), title in zip(
        axes,
        (color_image(image), colors, colors),
        (*tilted, ((30, 0, 0, 0, 30, 0), 0.5, "black")),
        (f"NAIP, {size} x {size} px of 1 m, and NLCD's cells", "NLCD's codes follow these cells",
         "blocks of 30 x 30 px mix the codes of several cells"),
        strict=True,
    ):
        ax.imshow(picture, interpolation="nearest", extent=(0, size, size, 0))
        ends = np.array([-20, 40])
        for k in range(-20, 40):
            for x, y in ((ends, np.full(2, k)), (np.full(2, k), ends)):
                ax.plot(*move(to_px, x, y), color=color, linewidth=0.8 + shift)
        ax.set(xlim=(0, size), ylim=(size, 0))
        ax.set_title(title, fontsize=11, color=INK)
        ax.axis("off")
    shown = [entry for code, entry in NLCD.items() if (codes == code).mean() > 0.001]
    handles = [Rectangle((0, 0), 1, 1, facecolor=color, edgecolor=INK) for _, color in shown]
    names = [name for name, _ in shown]
    figure.legend(handles, names, loc="lower center", ncols=len(names), frameon=False, fontsize=9.5, handlelength=1.2)
    save(figure, "tilted_cells.png")


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


DRAWINGS = {f.__name__: f for f in (architecture, regions, tilted_cells)}

if __name__ == "__main__":
    for word in sys.argv[1:] or DRAWINGS:
        DRAWINGS[word]()
