"""A picture beside a map, MAP_preview.png: the scene, the map and its legend, small enough to look at."""

import numpy as np

from data.rasters import Raster
from reports.figures import color_image, color_labels, contact_sheet, legend
from runtime import command
from runtime.errors import reason
from runtime.labels import IGNORE

ENDING = "_preview.png"
SIDE_PX = 2048  # at most, of the longer side of each panel
LEAST_PX = 256  # below this a pixel of the scene becomes a square


def save_preview(map_path, scene, bands, classes):
    """Write the picture of a map that is done; one line says where it cannot be made.

    scene: data.rasters.Raster; bands: how many of it were mapped; classes: [{"name", "color"}]
    """
    path = map_path.with_name(f"{map_path.stem}{ENDING}")
    try:
        step = max(1, -(-max(scene.size) // SIDE_PX))
        size = tuple(-(-side // step) for side in scene.size)
        shown = list(range(1, min(bands, 3) + 1))
        with Raster(map_path) as made:
            labels = made.dataset.read(1, out_shape=size)  # from its overviews
        pixels = np.moveaxis(scene.dataset.read(shown, out_shape=(len(shown), *size)), 0, -1)
        image, seen = np.full((*size, 3), 255, np.uint8), labels != IGNORE
        if seen.any():
            image[seen] = color_image(pixels[seen][None])[0]
        look = {"zoom": max(1, LEAST_PX // max(size)), "text_px": max(14, max(size) // 64)}
        panels = [image, color_labels(labels, classes)]
        contact_sheet(path, ["image", "map"], [panels], legend(classes, [labels], "no data"), **look)
    except Exception as error:  # whatever it is, the map is there
        command.say(f"note: {path}: no preview: {reason(error)}")
