"""Map whole scenes with a trained segmenter: a raster of any size in, a land-cover GeoTIFF out.

    python predict.py runs/agg_app scene.tif --out map.tif
    torchrun --nproc_per_node=4 predict.py runs/agg_app 'scenes/*.tif' more.csv --out maps --probs

A SCENE is a raster of any format that GDAL reads, a pattern, or a list: a .txt with one path a line or a .csv with a
column image, of paths below its folder. A map is a cloud-optimised GeoTIFF of class indices, 255 where the scene has no
data. It lies where the scene lies. --probs writes MAP_probs.tif beside it: a band a class, 0 to 254 for probability 0 to
1, 255 where the scene has no data. --coarse NLCD.tif lets a network that was trained by an observation model use the
coarse label of the place, in whatever coordinate system it is. MAP_preview.png shows scene and map. Maps that exist are
skipped. It needs rasterio (requirements-scenes.txt).
"""

import math
import signal
import sys
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from itertools import islice
from pathlib import Path

from runtime import signals

if __name__ == "__main__":
    signals.leave_quietly()

import numpy as np
import torch
import torch.distributed as dist
from tqdm import tqdm

from data.loading import to_device, to_tensor
from data.pictures import PICTURES
from data.rasters import Raster, gdal
from data.samples import stack_cells
from data.taxonomy import IGNORE, taxonomy_from_dict
from data.tile_io import TIFFS
from data.transforms import normalize_rows
from maps.map_writer import MapWriter
from maps.overlay import Overlay
from maps.preview import save_preview
from maps.scenes import at_size, read_windows, require_fitting, scale_warning, scene_paths
from maps.windows import ALIGN, Blend, mean_over_views, most_probable, probabilities, window_starts
from runtime import command, distributed
from runtime.errors import DiskFull, Refused
from trained import checkpoint_path, load_trained

CERTAIN = 254  # what stands for probability 1 in --probs; 255 is nodata
MOST = 1024  # windows at a time
AHEAD = 3  # windows that are read, and blocks that wait to be written, beside those in work
CACHE_MB = 256  # of scene and map that GDAL keeps; else it takes 5 % of the machine's memory


def main(arguments):
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # leave as by Ctrl-C: nothing half written stays
    rasterio, ranks = gdal(), distributed.start(arguments.device)
    # The ranks meet once, at the end, and may map for days until then.
    group = dist.new_group(backend="gloo", timeout=timedelta(days=365)) if ranks.world > 1 else None
    path = checkpoint_path(arguments.checkpoint)
    trained = load_trained(path, ranks.device)
    trained.segmenter.to(memory_format=torch.channels_last)
    if arguments.coarse:
        trained.require_observation(path)
    scenes = scene_paths(arguments.scenes)
    share = list(zip(scenes, output_paths(scenes, arguments.out, arguments.probs), strict=True))
    share = share[ranks.rank :: ranks.world]
    jobs = [job for job in share if arguments.overwrite or not all(file.exists() for file in job[1])]
    if len(jobs) < len(share):
        skipped = len(share) - len(jobs)
        command.say(f"{skipped} of {len(share)} maps exist and are skipped; --overwrite makes them anew")
    failed = 0
    for scene, outputs in jobs:
        try:
            with rasterio.Env(GDAL_CACHEMAX=CACHE_MB):
                map_scene(trained, scene, outputs, arguments, ranks.device)
        except DiskFull:
            raise  # a full disk is full for the next scene too
        except Refused as error:
            if len(scenes) == 1:
                raise
            command.say(f"not mapped: {error}", file=sys.stderr)
            failed += 1
    if group:
        counts = torch.tensor(failed)
        dist.all_reduce(counts, group=group)
        failed = int(counts)
    if failed:
        raise Refused(f"{failed} of {len(scenes)} scenes could not be mapped, as said above; the others are done")


@torch.inference_mode()
def map_scene(trained, path, outputs, arguments, device):
    """One scene to its map, and its probabilities where there is a second output; raises Refused."""
    if outputs[0].exists() and not arguments.overwrite:
        raise Refused(f"{outputs[0]}: is there, but not {outputs[1].name}; --overwrite makes both anew")
    started, facts = time.perf_counter(), trained.facts
    classes, bands = facts["classes"], facts["bands"]
    with ExitStack() as stack:
        scene = stack.enter_context(Raster(path))
        limits = require_fitting(scene, facts)
        if arguments.resample:
            scene = at_size(scene, bands, facts["image_gsd"], stack)
        elif warning := scale_warning(scene, facts["image_gsd"]):
            command.say(f"warning: {warning}", file=sys.stderr)
        size = scene.size
        rows, height = window_starts(size[0], arguments.window, arguments.overlap)
        cols, width = window_starts(size[1], arguments.window, arguments.overlap)
        windows, cell_px = read_windows(scene, rows, cols, height, width, bands, limits), None
        if arguments.coarse:
            coarse = stack.enter_context(Raster(arguments.coarse))
            overlay = overlay_of(coarse, scene, trained, arguments.same_crs)
            windows = ((*w, overlay.window(rows[w[0]], cols[w[1]], height, width)) for w in windows)
            cell_px = overlay.cell_px
        blend = Blend(len(classes), rows, cols, height, width, device)

        # Read ahead, through the network, blend, write behind. The writer's thread takes the blocks off the device.
        with ExitStack() as until_written:
            names = [c["name"] for c in classes]
            codes = ", ".join(f"{i} {name}" for i, name in enumerate(names))
            palette = [c["color"] for c in classes]
            writers = [MapWriter(outputs[0], scene, [codes], palette)]
            until_written.push(writers[0])
            if arguments.probs:
                writers.append(until_written.enter_context(MapWriter(outputs[1], scene, names)))
            reading, writing = (until_written.enter_context(ThreadPoolExecutor(1)) for _ in range(2))
            windows, behind = read_ahead(windows, reading, AHEAD + arguments.batch), deque()
            look = {"unit": "px", "unit_scale": True, "desc": path.name, "disable": None}
            bar = until_written.enter_context(tqdm(total=math.prod(size), **look))
            for i, j, probs, void in maps_of(trained, windows, device, arguments, cell_px):
                block = blend.add(i, j, probs)
                made = [most_probable(block)]
                if arguments.probs:
                    made.append((block * CERTAIN).round().to(torch.uint8))
                for writer, numbers in zip(writers, made, strict=True):
                    behind.append(writing.submit(put, writer, numbers, void, rows[i], cols[j], size))
                bar.update(min(block.shape[1], size[0] - rows[i]) * min(block.shape[2], size[1] - cols[j]))
                while len(behind) > AHEAD * len(writers):
                    behind.popleft().result()
            for write in behind:
                write.result()
        seconds = time.perf_counter() - started
        preview = None if arguments.no_preview else save_preview(outputs[0], scene, bands, classes)
    beside, rate = f"; preview {preview.name}" if preview else "", math.prod(size) / 1e6 / seconds
    command.say(f"{outputs[0]}: {size[0]} x {size[1]} px in {seconds:.1f} s, {rate:.2f} megapixels/s{beside}")


def overlay_of(coarse, scene, trained, same_crs):
    """The coarse raster over a scene; says in one line where it covers a part of it only."""
    merged = taxonomy_from_dict({"high": {}, **trained.facts}, coarse.path).low
    overlay = Overlay(coarse, scene, trained.observation.labels(merged)[0], trained.facts["scale"], same_crs)
    if overlay.covered < 0.995:
        share = f"{overlay.covered:.1%} of {scene.path}"
        command.say(f"note: {coarse.path} has classes over {share}; the rest is mapped without")
    return overlay


def maps_of(trained, windows, device, arguments, cell_px):
    """Windows -> (i, j, class probabilities (C, height, width), void), --batch of them at a time."""
    _, autocast, _ = distributed.mixed_precision(arguments.precision, device)
    while batch := list(islice(windows, arguments.batch)):
        seen = [w for w in batch if w[2] is not None]  # where nothing is to be seen, the network is not asked
        maps = iter(predict(trained, seen, device, autocast, arguments.tta, cell_px))
        for i, j, pixels, void, *_ in batch:
            nothing = torch.zeros(len(trained.facts["classes"]), *void.shape, device=device) if pixels is None else None
            yield i, j, next(maps) if nothing is None else nothing, void


def predict(trained, windows, device, autocast, tta, cell_px=None):
    """Class probabilities (B, C, height, width) of windows as `read_windows` yields them; () of none.

    cell_px: pixels of a cell, where windows have coarse labels as `Overlay.window` gives them beside their pixels
    """
    if not windows:
        return ()
    images = torch.stack([to_tensor(pixels) for _, _, pixels, *_ in windows]).to(device, non_blocking=True)
    images = normalize_rows(images, trained.mean, trained.std)

    def network(images):
        with autocast:
            return trained.segmenter(images)

    def probs(images):
        return probabilities(network(images))

    if cell_px is None:
        return mean_over_views(probs, images) if tta else probs(images)
    logits = mean_over_views(probs, images).clamp_(min=1e-9).log_() if tta else network(images)
    coarse = to_device(stack_cells([cells for *_, cells in windows]), device)
    whole = np.zeros(images.shape[2:], bool)
    void = torch.from_numpy(np.stack([whole if w[3] is None else w[3] for w in windows])).to(device)
    return probabilities(trained.informed(logits, coarse, cell_px, void))


def put(writer, block, void, row, col, size):
    """A block of the map at (row, col) of a scene of `size`, off the device and to the file; in the writer's thread."""
    block = block.cpu().numpy()[..., : size[0] - row, : size[1] - col]
    if void is not None:
        block[..., void[: block.shape[-2], : block.shape[-1]]] = IGNORE
    writer.put(block, row, col)


def read_ahead(items, pool, count):
    """The items of an iterator, made by the pool's one thread, up to `count` before they are asked for."""
    pending = deque(pool.submit(next, items, None) for _ in range(count))
    while (item := pending.popleft().result()) is not None:
        pending.append(pool.submit(next, items, None))
        yield item


def output_paths(scenes, out, with_probs):
    """Of each scene, the files to write: (map,) or (map, probabilities). raises: Refused where two would be one."""
    if out.suffix.lower() in TIFFS and not out.is_dir():
        if len(scenes) != 1:
            raise Refused(f"--out {out}: names one file, and there are {len(scenes)} scenes; give a folder")
        maps = [out]
    else:
        maps = [out / f"{scene.stem}.tif" for scene in scenes]
    outputs = [(m, m.with_name(f"{m.stem}_probs.tif")) if with_probs else (m,) for m in maps]
    taken = {scene.resolve(): "is a scene itself" for scene in scenes}
    for scene, files in zip(scenes, outputs, strict=True):
        for file in files:
            if file.resolve() in taken:
                raise Refused(f"{file}: is where {scene} is to go, but {taken[file.resolve()]}; change --out")
            taken[file.resolve()] = f"so is {scene}"
    return outputs


def parse(argv=None):
    parser = command.parser(__doc__)
    add = parser.add_argument
    add("checkpoint", metavar="CHECKPOINT", help="best.pt, last.pt or a run's folder")
    add("scenes", nargs="+", metavar="SCENE")
    add("--out", type=command.place, required=True, metavar="FILE_OR_DIR", help="MAP.tif or a folder")
    add("--probs", action="store_true", help="write class probabilities too")
    add("--coarse", type=Path, metavar="RASTER", help="use this coarse map of the place too [ours]")
    add("--same-crs", action="store_true", help="take scene and --coarse for one coordinate system, though they differ")
    add("--resample", action="store_true", help="map a scene of another pixel size at that of the training images")
    add("--overwrite", action="store_true", help="make maps that exist anew")
    add("--tta", action="store_true", help="average the eight dihedral views: eight times the work")
    add("--no-preview", action="store_true", help="write no MAP_preview.png")
    add("--window", type=int, default=1024, metavar="PX", help="(default: 1024)")
    add("--overlap", type=int, default=128, metavar="PX", help="of neighbouring windows (default: 128)")
    add("--batch", type=int, default=1, metavar="N", help="windows at a time (default: 1)")
    add("--precision", default="auto", choices=("auto", "bf16", "fp16", "off"), help="(default: auto)")
    add("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"), help="(default: auto)")
    arguments = parser.parse_args(argv)
    if arguments.window < ALIGN or arguments.window % ALIGN:
        parser.error(f"--window {arguments.window}: must be a multiple of {ALIGN}")
    if not 0 <= arguments.overlap <= arguments.window // 2 or arguments.overlap % ALIGN:
        parser.error(f"--overlap {arguments.overlap}: must be a multiple of {ALIGN}, at most half of --window")
    if not 1 <= arguments.batch <= MOST:
        parser.error(f"--batch {arguments.batch}: must be 1 to {MOST}")
    if arguments.out.suffix.lower() in PICTURES:
        parser.error(f"--out {arguments.out}: maps are GeoTIFFs; name a .tif or a folder")
    return arguments


if __name__ == "__main__":
    command.run(lambda: main(parse()), distributed.stop)
