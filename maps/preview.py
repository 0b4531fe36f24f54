"""A picture beside a map, MAP_preview.png: the scene, the map and its legend, small enough to look at."""

import contextlib
import math

import numpy as np
from PIL import Image

from data.rasters.images import open_image
from figures import color_image, color_labels, contact_sheet, legend
from maps.map_writer import read_overview
from maps.scenes import ROWS, read_windows
from maps.windows import window_starts
from runtime import command
from runtime.errors import reason
from runtime.files import remove_leftovers

SIDE_PX = 2048  # at most, of the longer side of each panel
LEAST_PX = 256  # below this a pixel of the scene becomes a square
MARK = "Low2High: "  # how the description of a map, and of its preview, begins


class Preview:
    """Every so many pixels of a scene, taken as its windows pass on their way to the network.

    description: what predict.py says of the map, by which its preview is known
    A preview that cannot be made is said in one line; no map fails for it.
    """

    def __init__(self, map_path, description):
        self.map_path, self.description = map_path, description
        self.path = map_path.with_name(f"{map_path.stem}_preview.png")
        self.pixels = None

    def watch(self, header, windows, rows, cols):
        """The windows, as `maps.scenes.read_windows` yields them, each looked at in passing."""
        size = header.height, header.width
        self.level = max(0, math.ceil(math.log2(max(size) / SIDE_PX)))  # of the map's overviews: each halves it
        self.step = 2**self.level
        self.shape = tuple(-(-side // self.step) for side in size)
        for window in windows:
            i, j, pixels, void = window[:4]
            if pixels is not None:
                self._keep(rows[i], cols[j], pixels, void)
            yield window

    def _keep(self, row, col, pixels, void):
        if self.pixels is None:
            self.pixels = np.zeros((*self.shape, pixels.shape[2]), pixels.dtype)
            self.void = np.ones(self.shape, bool)
        top, left = -row % self.step, -col % self.step
        pixels = pixels[top :: self.step, left :: self.step]
        row, col = (row + top) // self.step, (col + left) // self.step
        place = np.s_[row : row + len(pixels), col : col + pixels.shape[1]]
        height, width = self.void[place].shape  # a window may go on beyond the scene's edge
        self.pixels[place] = pixels[:height, :width]
        self.void[place] = False if void is None else void[top :: self.step, left :: self.step][:height, :width]

    def save(self, classes):
        """Write the PNG, once the map is there -> whether it could be. classes: [{"name", "color"}]"""
        with self._saying():
            self._require_own()
            remove_leftovers(self.path.parent, self.path.name)
            labels = read_overview(self.map_path, self.level)
            longer = max(self.shape)
            look = {"zoom": max(1, LEAST_PX // longer), "text_px": max(14, longer // 64)}
            entries = legend(classes, [labels], "no data")
            panels = [self._image(), color_labels(labels, classes)]
            contact_sheet(self.path, ["image", "map"], [panels], entries, **look, description=self.description)
            return True
        return False

    def remake(self, scene, bands, classes):
        """Read the scene once more and save, where the preview of a complete map is missing."""
        if _description(self.path) == self.description:
            return
        with self._saying(), open_image(scene) as raster:
            self._require_own()
            header = raster.header
            (rows, height), (cols, width) = (window_starts(side, 4 * ROWS, 0) for side in (header.height, header.width))
            windows = read_windows(raster, rows, cols, height, width, bands)
            for _ in self.watch(header, windows, rows, cols):
                pass
            self.save(classes)

    def _image(self):
        """(H, W, 3) uint8, white where the scene has no data; stretched by what it has, some rows at a time."""
        if self.pixels is None:
            return np.full((*self.shape, 3), 255, np.uint8)
        step = max(1, max(self.shape) // 512)
        seen = self.pixels[::step, ::step][~self.void[::step, ::step]]
        seen = seen if len(seen) else self.pixels[~self.void]
        strips = np.array_split(self.pixels, -(-len(self.pixels) // ROWS))
        image = np.concatenate([color_image(strip, like=seen) for strip in strips])
        image[self.void] = 255
        return image

    def _require_own(self):
        if self.path.exists() and not _description(self.path).startswith(MARK):
            raise FileExistsError("another picture of this name is there, and stays")

    @contextlib.contextmanager
    def _saying(self):
        try:
            yield
        except Exception as error:
            command.say(f"note: {self.path}: no preview: {reason(error)}")


def is_preview(path):
    """Whether a file is a preview of some map, as a pattern of scenes may find it."""
    return path.name.endswith("_preview.png") and _description(path).startswith(MARK)


def _description(path):
    """The text that `contact_sheet` was given; "" where there is none."""
    try:
        with Image.open(path) as picture:
            return picture.info.get("Description", "")
    except Exception:  # whatever is wrong with it, it is no preview
        return ""
