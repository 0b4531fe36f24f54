"""Map whole scenes with a trained segmenter: a GeoTIFF of any size in, a land-cover GeoTIFF out.

    python predict.py runs/agg_app scene.tif --out map.tif
    torchrun --nproc_per_node=4 predict.py runs/agg_app 'scenes/*.tif' more.csv --out maps --probs

A SCENE is a GeoTIFF, a PNG or JPEG, a pattern, or a list: a .txt with one path a line or a .csv with a column image, of
paths below its folder. A map holds class indices, 255 where the scene has no data, with the scene's georeference, the
classes' colours and overviews. --probs writes MAP_probs.tif beside it: a band a class, 0 to 254 for probability 0 to 1,
255 where the scene has no data. --coarse NLCD.tif lets a network that was trained by an observation model use the
coarse label of the place, on whatever grid it lies. MAP_preview.png shows both. Unchanged scenes are not mapped again.
"""

import hashlib
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
from data.rasters.images import PICTURES, TIFFS, open_image
from tqdm import tqdm

from data.loading import to_device, to_tensor
from data.samples import stack_cells
from data.taxonomy import IGNORE, taxonomy_from_dict
from data.transforms import normalize_rows
from maps.map_writer import MapWriter, read_description
from maps.overlay import Overlay
from maps.preview import MARK, Preview, is_preview
from maps.scenes import lost_beside, read_windows, require_fitting, scale_warning, scene_paths
from maps.windows import ALIGN, Blend, mean_over_views, most_probable, probabilities, window_starts
from runtime import command, content, distributed
from runtime.errors import DiskFull, Refused
from runtime.workers import default_workers
from trained import checkpoint_path, load_trained

CERTAIN = 254  # what stands for probability 1 in --probs; 255 is nodata
MOST = 1024  # windows at a time, and threads that read them
AHEAD = 3  # windows that are read, and blocks that wait to be written, beside those in work


def main(arguments):
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # leave as by Ctrl-C: nothing half written stays
    ranks = distributed.start(arguments.device)
    # The ranks meet once, at the end, and may map for days until then.
    group = dist.new_group(backend="gloo", timeout=timedelta(days=365)) if ranks.world > 1 else None
    path = checkpoint_path(arguments.checkpoint)
    trained = load_trained(path, ranks.device)
    trained.segmenter.to(memory_format=torch.channels_last)
    _, autocast, _ = distributed.mixed_precision(arguments.precision, ranks.device)
    scenes = [scene for scene in scene_paths(arguments.scenes) if not is_preview(scene)]
    if not scenes:
        raise Refused(f"{' '.join(arguments.scenes)}: a preview of a map, and no scene")
    outputs = output_paths(scenes, arguments.out, arguments.probs)
    weights = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    how = f"weights {weights}, window {arguments.window}, overlap {arguments.overlap}, tta {arguments.tta}"
    if arguments.coarse:
        trained.require_observation(path)
        how += f", coarse {arguments.coarse.name} of {arguments.coarse.stat().st_size} bytes"
    beside = content.checksum(arguments.coarse) if arguments.coarse else ""
    share = list(zip(scenes, outputs, strict=True))[ranks.rank :: ranks.world]
    complete, jobs = [], []
    for scene, files in share:
        recipe = recipe_of(scene, how, beside)
        (complete if is_complete(files, recipe) else jobs).append((scene, files, recipe))
    if complete:
        command.say(f"{len(complete)} of {len(share)} scenes are complete")
    failed = 0
    for scene, outputs, recipe in jobs:
        try:
            map_scene(trained, scene, outputs, recipe, arguments, ranks.device, autocast)
        except DiskFull:
            raise  # a full disk is full for the next scene too
        except Refused as error:
            if len(scenes) == 1:
                raise
            command.say(f"not mapped: {error}", file=sys.stderr)
            failed += 1
    if not arguments.no_preview:
        for scene, outputs, recipe in complete:
            Preview(outputs[0], recipe).remake(scene, trained.facts["bands"], trained.facts["classes"])
    if group:
        counts = torch.tensor(failed)
        dist.all_reduce(counts, group=group)
        failed = int(counts)
    if failed:
        raise Refused(f"{failed} of {len(scenes)} scenes could not be mapped, as said above; the others are done")


@torch.inference_mode()
def map_scene(trained, scene, outputs, recipe, arguments, device, autocast):
    """One scene to its map, and its probabilities where there is a second output; raises Refused."""
    started, classes = time.perf_counter(), trained.facts["classes"]
    with ExitStack() as stack:
        raster = stack.enter_context(open_image(scene, readers=arguments.readers))
        header = raster.header
        require_fitting(header, trained.facts, arguments.window)
        facts = {"georeference": raster.georeference(), "nodata": IGNORE, "description": recipe}
        for warning in filter(None, (scale_warning(header, trained.facts["image_gsd"]), *lost_beside(header))):
            command.say(f"warning: {warning}", file=sys.stderr)
        rows, height = window_starts(header.height, arguments.window, arguments.overlap)
        cols, width = window_starts(header.width, arguments.window, arguments.overlap)
        size = header.height, header.width
        palette = [c["color"] for c in classes]
        writers = [stack.enter_context(MapWriter(outputs[0], *size, overviews="nearest", palette=palette, **facts))]
        if arguments.probs:
            names = [c["name"] for c in classes]
            writers.append(MapWriter(outputs[1], *size, len(classes), overviews="mean", names=names, **facts))
            stack.enter_context(writers[1])
        reading, writing = (stack.enter_context(ThreadPoolExecutor(1)) for _ in range(2))
        look = {"unit": "px", "unit_scale": True, "desc": scene.name, "disable": None}
        bar = stack.enter_context(tqdm(total=math.prod(size), **look))

        # Read ahead, through the network, blend, write behind. The writer's thread takes the blocks off the device.
        windows, overlay = read_windows(raster, rows, cols, height, width, trained.facts["bands"]), None
        preview = Preview(outputs[0], recipe)
        if not arguments.no_preview:
            windows = preview.watch(header, windows, rows, cols)
        if arguments.coarse:
            overlay = stack.enter_context(open_overlay(arguments.coarse, header, trained, arguments.same_crs))
            windows = ((*w, overlay.window(rows[w[0]], cols[w[1]], height, width)) for w in windows)
        windows = read_ahead(windows, reading, AHEAD + arguments.batch)
        blend = Blend(len(classes), rows, cols, height, width, device)
        behind = deque()
        while batch := list(islice(windows, arguments.batch)):
            cell_px = overlay and overlay.cell_px
            seen = [w for w in batch if w[2] is not None]
            maps = iter(predict(trained, seen, device, autocast, arguments.tta, cell_px))
            for i, j, pixels, void, *_ in batch:
                seen = pixels is not None  # where nothing is to be seen, the network is not asked
                probs = next(maps) if seen else torch.zeros(len(classes), height, width, device=device)
                block = blend.add(i, j, probs)
                blocks = [most_probable(block)]
                if arguments.probs:
                    blocks.append((block * CERTAIN).round().to(torch.uint8).movedim(0, 2))
                for writer, made in zip(writers, blocks, strict=True):
                    behind.append(writing.submit(put, writer, made, void, rows[i], cols[j], size))
                bar.update(min(block.shape[1], size[0] - rows[i]) * min(block.shape[2], size[1] - cols[j]))
                while len(behind) > AHEAD * len(writers):
                    behind.popleft().result()
        for write in behind:
            write.result()
    seconds = time.perf_counter() - started
    rate = math.prod(size) / 1e6 / seconds
    drawn = not arguments.no_preview and preview.save(classes)
    beside = f"; preview {preview.path.name}" if drawn else ""
    command.say(f"{outputs[0]}: {size[0]} x {size[1]} px in {seconds:.1f} s, {rate:.2f} megapixels/s{beside}")


def open_overlay(path, header, trained, same_crs):
    """The coarse raster over a scene; says in one line where it covers a part of it only."""
    merged = taxonomy_from_dict({"high": {}, **trained.facts}, path).low
    overlay = Overlay(path, header, trained.observation.labels(merged)[0], trained.facts["scale"], same_crs)
    if overlay.covered < 0.995:
        command.say(f"note: {path} has classes over {overlay.covered:.1%} of {header.path}; the rest is mapped without")
    return overlay


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
    block = block.cpu().numpy()[: size[0] - row, : size[1] - col]
    if void is not None:
        block[void[: block.shape[0], : block.shape[1]]] = IGNORE
    writer.put(block)


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


def recipe_of(scene, how, beside):
    """What a map says of its making; beside: checksum of the coarse map, or nothing."""
    stat = scene.stat()
    # Of a larger scene the checksum reads pieces: there a time of change counts too.
    changed = f" of {stat.st_mtime_ns}" if stat.st_size > content.WHOLE else ""
    return f"{MARK}{how}, scene of {stat.st_size} bytes, content {content.checksum(scene)}{changed}{beside}"


def is_complete(outputs, recipe):
    """Whether all outputs are there, so made, and of this scene; the first versions kept its size alone.

    raises: Refused where one stands that was made otherwise
    """
    means, found = recipe.rpartition(", scene of ")[0], []
    for path in filter(Path.exists, outputs):
        found.append(read_description(path))
        if found[-1].rpartition(", scene of ")[0] != means:
            raise Refused(
                f"{path}: is there, but by other means ({found[-1] or 'not by this command'}) than asked for "
                f"({recipe}); remove it, or give another --out"
            )
    return len(found) == len(outputs) and {*found} <= {recipe, recipe.rpartition(", content ")[0]}


def parse(argv=None):
    parser = command.parser(__doc__)
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="best.pt, last.pt or a run's folder")
    parser.add_argument("scenes", nargs="+", metavar="SCENE")
    parser.add_argument("--out", type=command.place, required=True, metavar="FILE_OR_DIR", help="MAP.tif or a folder")
    parser.add_argument("--probs", action="store_true", help="write class probabilities too")
    parser.add_argument("--coarse", type=Path, metavar="TIF", help="use this coarse map of the place too [ours]")
    parser.add_argument(
        "--same-crs", action="store_true", help="take scene and --coarse for one coordinate system, though they differ"
    )
    parser.add_argument("--tta", action="store_true", help="average the eight dihedral views: eight times the work")
    parser.add_argument("--no-preview", action="store_true", help="write no MAP_preview.png")
    parser.add_argument("--window", type=int, default=1024, metavar="PX", help="(default: 1024)")
    parser.add_argument("--overlap", type=int, default=128, metavar="PX", help="of neighbouring windows (default: 128)")
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="windows at a time (default: 1)")
    readers = min(8, default_workers())
    more = "threads that inflate a scene (default: cores, up to 8)"
    parser.add_argument("--readers", type=int, default=readers, metavar="N", help=more)
    parser.add_argument("--precision", default="auto", choices=("auto", "bf16", "fp16", "off"), help="(default: auto)")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"), help="(default: auto)")
    arguments = parser.parse_args(argv)
    if arguments.window < ALIGN or arguments.window % ALIGN:
        parser.error(f"--window {arguments.window}: must be a multiple of {ALIGN}")
    if not 0 <= arguments.overlap <= arguments.window // 2 or arguments.overlap % ALIGN:
        parser.error(f"--overlap {arguments.overlap}: must be a multiple of {ALIGN}, at most half of --window")
    for name in ("batch", "readers"):
        if not 1 <= getattr(arguments, name) <= MOST:
            parser.error(f"--{name} {getattr(arguments, name)}: must be 1 to {MOST}")
    if arguments.out.suffix.lower() in PICTURES:
        parser.error(f"--out {arguments.out}: maps are GeoTIFFs; name a .tif or a folder")
    return arguments


if __name__ == "__main__":
    command.run(lambda: main(parse()), distributed.stop)
