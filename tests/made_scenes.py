"""Scenes of one image and two labels, made by hand, and what data.prepare makes of them."""

import csv
import hashlib
from pathlib import Path

import geotiffs
import numpy as np
from PIL import Image

from data import tile_io
from data.manifest import read_manifest
from data.prepare.__main__ import main

REPOSITORY = Path(__file__).parents[1]
LOW2HIGH = REPOSITORY / "configs" / "taxonomies" / "low2high.yaml"
PX = 32
UTM = geotiffs.UTM
COLORED = """
classes: [{name: water, color: [0, 0, 255]}, {name: land, color: [0, 255, 0]}, {name: road, color: [9, 9, 9]}]
colors: {"#E2A929": water, "#8429F6": land, "#6EC1E4": road, "#000000": ignore}
"""
MASK_COLORS = np.array([(0, 0, 0), (0xE2, 0xA9, 0x29), (0x84, 0x29, 0xF6), (0x6E, 0xC1, 0xE4)], np.uint8)


def run(*arguments, workers=1):
    return main([*map(str, arguments), "--workers", str(workers)])


def read(path):
    """Pixels, and all that the file holds."""
    stored = tile_io.read(path)
    return stored.pixels, stored


def epsg_of(path):
    return geotiffs.read(path)[1].crs.to_epsg()


def manifest(root):
    return read_manifest(root)[1]


def files(root):
    """{relative path: digest} of a tile set, without what the builder keeps for itself."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".build" not in path.parts
    }


def busy(height, width, codes, seed=0, block=4):
    """A label in which every 32 px tile has all codes and none of them much."""
    rng = np.random.default_rng(seed)
    coarse = rng.choice(codes, (-(-height // block), -(-width // block)))
    return coarse.repeat(block, 0).repeat(block, 1)[:height, :width].astype(np.uint8)


def write_scene(folder, name="s", image=None, high=None, low=None, low_transform=None, transform=UTM, **settings):
    """A scene of 64 x 96 px, six tiles, that passes the filter unless its parts say otherwise; returns its row."""
    rng = np.random.default_rng(1)
    image = rng.integers(1, 256, (64, 96, 3), np.uint8) if image is None else image
    high = busy(64, 96, [1, 2, 3, 5]) if high is None else high
    low = busy(64, 96, [11, 41, 81, 22], block=8) if low is None else low
    crs, more = settings.get("crs", 26917), {"nodata": settings.get("label_nodata")}
    high_transform, high_crs = settings.get("high_transform", transform), settings.get("high_crs", crs)
    geotiffs.write(folder / f"{name}_image.tif", image, transform, crs, settings.get("nodata"))
    geotiffs.write(folder / f"{name}_high.tif", high, high_transform, high_crs, **more)
    geotiffs.write(folder / f"{name}_low.tif", low, low_transform or transform, settings.get("low_crs", crs), **more)
    about = {"scene": name, "region": settings.get("region", "de"), "split": settings.get("split", "")}
    return {**about, **{kind: f"{name}_{kind}.tif" for kind in ("image", "high", "low")}}


def write_list(folder, rows, name="list.csv"):
    with (folder / name).open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder / name


def words_for(scenes, *options, source="--scenes", scale=30):
    """The words of a build; n is told, since made-up coarse labels lie on their image's pixels."""
    px = ("--tile-px", PX) if source == "--scenes" and "--tile-px" not in options else ()
    told = ("--scale", scale) if scale and "--scale" not in options else ()
    return source, scenes, "--taxonomy", LOW2HIGH, *px, *told, *options


def build_scene(tmp_path, *options, **parts):
    """Build one hand-made scene; (exit status, root)."""
    scenes = write_list(tmp_path / "raw", [write_scene(tmp_path / "raw", **parts)])
    words = words_for(scenes, *options, scale=None if "low_transform" in parts else 30)
    return run(tmp_path / "out", *words), tmp_path / "out"


def place(i):
    """A georeference of its own for each scene."""
    return (1.0, 0.0, 500_000.0 + 1000 * i, 0.0, -1.0, 4_300_000.0)


def many_scenes(folder, count=8):
    rows = [write_scene(folder, f"s{i}", region=("de", "va")[i % 2], transform=place(i)) for i in range(count)]
    return write_list(folder, rows)


def photographs(folder, count=4, size=(64, 96), suffix="png"):
    """Photographs with masks in colours; returns the rows of their list and the codes of each mask."""
    rows, masks = [], {}
    for i in range(count):
        name, codes = f"p{i}", busy(*size, [0, 1, 2, 3], seed=i)
        picture = np.random.default_rng(i).integers(0, 255, (*size, 3), np.uint8)
        row = {"image": f"images/{name}.{suffix}", "high": f"masks/{name}.png"}
        for path, pixels in zip(row.values(), (picture, MASK_COLORS[codes]), strict=True):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / path)
        rows.append({**row, "region": "here"})
        masks[name] = codes
    return rows, masks


def colored(folder, text=COLORED):
    (folder / "taxonomy.yaml").write_text(text)
    return folder / "taxonomy.yaml"


def one_line(capsys):
    """What a build that is refused says."""
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    return error
