"""Contact sheets like Fig. 6: one row a tile, one column a map, with names and a legend of classes."""

import math

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from data.cells import upsampled
from data.loading import to_device, to_tensor
from data.samples import stack_cells
from runtime.errors import Refused, nearest
from runtime.files import open_whole
from runtime.labels import IGNORE

IGNORED_COLOR = (255, 255, 255)
MARGIN_PX, TITLE_PX = 6, 22
SHEET_TILES = 6  # where none are named


def color_image(image, like=None):
    """(H, W, K) stored pixels -> (H, W, 3) uint8: the first three bands (one: grey), stretched from the 1st to the 99th
    percentile of all three together, so that colours keep their relation.

    like: stretch as this image of the same bands would be, so that two pictures can be compared
    """
    shown = image[..., :3] if image.shape[2] >= 3 else np.repeat(image[..., :1], 3, axis=2)
    low, high = np.percentile((shown if like is None else like)[..., :3], (1, 99))
    return np.clip((shown - low) * (255.0 / max(high - low, 1e-6)), 0, 255).astype(np.uint8)


def color_labels(labels, classes):
    """(H, W) class indices -> (H, W, 3) uint8 in the classes' colours; ignored pixels are white.

    classes: [{"name", "color"}] in class order
    """
    palette = np.full((256, 3), IGNORED_COLOR, np.uint8)
    palette[: len(classes)] = [c["color"] for c in classes]
    return palette[labels]


def legend(classes, maps, ignored="no label"):
    """Entries of a legend: the classes, and what white stands for where one of the maps (H, W) has ignored pixels."""
    holes = any((labels == IGNORE).any() for labels in maps)
    return [*classes, {"name": ignored, "color": IGNORED_COLOR}] if holes else classes


def choose_varied(label_maps, count):
    """Indices of maps that show many classes: of each of `count` equal stretches of the sequence, that of most entropy.

    label_maps: (H, W) class indices each; ignored pixels do not count
    """
    entropies = []
    for labels in label_maps:
        pixels = np.bincount(labels.ravel(), minlength=256)[:IGNORE]
        share = pixels[pixels > 0] / max(pixels.sum(), 1)
        entropies.append(-(share * np.log(share)).sum())
    stretches = np.array_split(np.arange(len(entropies)), min(count, len(entropies)))
    return [int(stretch[np.argmax(np.take(entropies, stretch))]) for stretch in stretches]


def contact_sheet(path, titles, rows, classes=(), zoom=1, text_px=14):
    """Write a PNG: a row of pictures for each tile under the columns' titles, then the legend where there are classes.

    rows: [[(H, W, 3) uint8, ...], ...], all of one size
    """
    height, width = (side * zoom for side in rows[0][0].shape[:2])
    font, line_px, box_px = ImageFont.load_default(size=text_px), TITLE_PX * text_px // 14, text_px
    column_px = max(width, *(math.ceil(font.getlength(title)) for title in titles)) + MARGIN_PX
    entry_px = max([0, *(3 * box_px + math.ceil(font.getlength(entry["name"])) for entry in classes)])
    sheet_width = MARGIN_PX + max(len(titles) * column_px, entry_px)
    entries_a_line = (sheet_width - MARGIN_PX) // max(entry_px, 1)
    legend_top = line_px + len(rows) * (height + MARGIN_PX) + MARGIN_PX
    legend_px = -(-len(classes) // entries_a_line) * line_px if classes else -MARGIN_PX
    sheet = Image.new("RGB", (sheet_width, legend_top + legend_px), "white")
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        middle = MARGIN_PX + column * column_px + (column_px - MARGIN_PX) / 2
        draw.text((middle, line_px / 2), title, "black", font, anchor="mm")
        for i, row in enumerate(rows):
            picture = Image.fromarray(row[column]).resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(picture, (math.floor(middle - width / 2), line_px + i * (height + MARGIN_PX)))
    for i, entry in enumerate(classes):
        x = MARGIN_PX + i % entries_a_line * entry_px
        y = legend_top + i // entries_a_line * line_px + (line_px - box_px) // 2
        draw.rectangle((x, y, x + box_px, y + box_px), fill=tuple(entry["color"]), outline="black")
        draw.text((x + box_px * 1.4, y + box_px / 2), entry["name"], "black", font, anchor="lm")
    with open_whole(path, flush=False) as file:
        sheet.save(file, "PNG")


def chosen_tiles(tiles, names):
    """Indices of the tiles to draw: those named, else some that show many classes, from all over the set."""
    if not names:
        maps = (tiles.load_high(i) for i in tqdm(range(len(tiles)), desc="choosing tiles", disable=None, leave=False))
        return choose_varied(maps, SHEET_TILES)
    index = {row["tile"]: i for i, row in enumerate(tiles.rows)}
    for name in names:
        if name not in index:
            raise Refused(f"--tiles: there is no tile {name} in this split; did you mean {nearest(name, index)}?")
    return [index[name] for name in names]


@torch.no_grad()
def draw_figure6(path, methods, tiles, device, chosen, coarse=False):
    """Image, high-resolution label, each method's prediction, low-resolution label (Fig. 6; without methods 2).

    coarse: let methods use the coarse label of each tile too (beyond/informed.py)
    """
    rows, labels, classes = [], [], tiles.description.classes()
    for i in chosen:
        tile = tiles.load(i)
        image = to_device(to_tensor(tile.image.transpose(2, 0, 1))[None], device)
        labels.append(tile.high)
        row = [color_image(tile.image), color_labels(tile.high, classes)]
        for segmenter in methods:
            logits = segmenter(image)
            if coarse:
                cells = tiles.relabelled(segmenter.observation.labels).load(i, high=False).cells
                cells = to_device(stack_cells([(cells.labels, cells.to_cell)]), device)
                void = None if tile.void is None else torch.from_numpy(tile.void)[None].to(device)
                logits = segmenter.informed(logits, cells, tiles.description.scale**2, void)
            row.append(color_labels(logits.argmax(dim=1)[0].cpu().numpy(), classes))
        labels.append(upsampled(tile.cells, *tile.high.shape))
        rows.append([*row, color_labels(labels[-1], classes)])
    titles = ["image", "high label", *(s.name for s in methods), "low label"]
    contact_sheet(path, titles, rows, legend(classes, labels))
    print(f"{path}: contact sheet of {len(rows)} tiles (Fig. {6 if methods else 2})")
