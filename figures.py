"""Contact sheets like Fig. 6: one row a tile, one column a map, with names and a legend of classes."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

IGNORED_COLOR = (255, 255, 255)
MARGIN_PX, TITLE_PX = 6, 22


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


def choose_varied(label_maps, count):
    """Indices of maps that show many classes: of each of `count` equal stretches of the sequence, that of most entropy.

    label_maps: (H, W) class indices each; ignored pixels, 255, do not count
    """
    entropies = []
    for labels in label_maps:
        pixels = np.bincount(labels.ravel(), minlength=256)[:255]
        share = pixels[pixels > 0] / max(pixels.sum(), 1)
        entropies.append(-(share * np.log(share)).sum())
    stretches = np.array_split(np.arange(len(entropies)), min(count, len(entropies)))
    return [int(stretch[np.argmax(np.take(entropies, stretch))]) for stretch in stretches]


def contact_sheet(path, titles, rows, classes=(), zoom=1):
    """Write a PNG: a row of pictures for each tile under the columns' titles, then the legend where there are classes.

    rows: [[(H, W, 3) uint8, ...], ...], all of one size
    """
    height, width = (side * zoom for side in rows[0][0].shape[:2])
    font = ImageFont.load_default(size=14)
    sheet_width = MARGIN_PX + len(titles) * (width + MARGIN_PX)
    sheet_height = TITLE_PX + len(rows) * (height + MARGIN_PX) + (TITLE_PX + MARGIN_PX if classes else 0)
    sheet = Image.new("RGB", (sheet_width, sheet_height), "white")
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        x = MARGIN_PX + column * (width + MARGIN_PX)
        draw.text((x + width / 2, TITLE_PX / 2), title, "black", font, anchor="mm")
        for i, row in enumerate(rows):
            picture = Image.fromarray(row[column]).resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(picture, (x, TITLE_PX + i * (height + MARGIN_PX)))
    x, y = MARGIN_PX, sheet_height - TITLE_PX
    for entry in classes:
        draw.rectangle((x, y + 2, x + 14, y + 16), fill=tuple(entry["color"]), outline="black")
        draw.text((x + 20, y + 9), entry["name"], "black", font, anchor="lm")
        x += 40 + int(draw.textlength(entry["name"], font))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
