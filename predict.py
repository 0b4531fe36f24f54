"""Map whole scenes with a trained segmenter: a raster of any size in, a land-cover GeoTIFF out.

    python predict.py runs/agg_app scene.tif --out map.tif
    torchrun --nproc_per_node=4 predict.py runs/agg_app 'scenes/*.tif' --out maps --probs

A SCENE is a raster of any format that GDAL reads, or a pattern. A map holds class indices, 255 where the scene has no
data. It is a cloud-optimised GeoTIFF with the scene's georeference. --probs writes MAP_probs.tif beside it: one band
per class, with 0 to 254 for probability 0 to 1. --coarse NLCD.tif lets a network that was trained with an observation
model use the coarse label of the place, in any coordinate system. Existing maps are skipped. This needs
requirements-scenes.txt.
"""

import math
import signal
import sys
import time
import warnings
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from tqdm import tqdm

from beyond.informed import load_informed
from beyond.overlay import Overlay
from data.loading import to_device, to_tensor
from data.rasters import Raster, gdal
from data.samples import stack_cells
from data.taxonomy import codes_in_words
from data.transforms import normalize
from maps.map_writer import MapWriter
from maps.preview import save_preview
from maps.scenes import at_size, read_windows, require_fitting, scene_paths
from maps.windows import ALIGN, Blend, mean_over_views, probabilities, window_starts
from runtime import command, distributed
from runtime.errors import DiskFull, Refused, require
from runtime.signals import interrupt
from trained import checkpoint_path, load_trained

CERTAIN = 254  # what stands for probability 1 in --probs; 255 is nodata
AHEAD = 4  # windows that are read before the network takes them
CACHE_BYTES = 256 * 2**20  # of scene and map that GDAL keeps; else it takes 5 % of the machine's memory


def main(arguments):
    signal.signal(signal.SIGTERM, interrupt)
    rasterio, ranks = gdal(), distributed.start(arguments.device, mps=not arguments.coarse)
    warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)  # pictures are scenes too
    # The ranks meet once, at the end, and may map for days until then.
    group = dist.new_group(backend="gloo", timeout=timedelta(days=365)) if ranks.world > 1 else None
    path, scenes = checkpoint_path(arguments.checkpoint), scene_paths(arguments.scenes)
    trained = (load_informed if arguments.coarse else load_trained)(path, ranks.device)
    trained.segmenter.to(memory_format=torch.channels_last)  # maps are made faster so on all CPUs, unlike training
    share = list(zip(scenes, output_paths(scenes, arguments.out, arguments.probs), strict=True))
    share = share[ranks.rank :: ranks.world]
    jobs = [job for job in share if arguments.overwrite or not all(file.exists() for file in job[1])]
    if len(jobs) < len(share):
        command.say(f"{len(share) - len(jobs)} of {len(share)} maps exist and are skipped; --overwrite replaces them")
    failed = torch.tensor(0)
    for scene, outputs in jobs:
        try:
            with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES):
                map_scene(trained, scene, outputs, arguments, ranks.device)
        except DiskFull:
            raise  # a full disk is full for the next scene too
        except Refused as error:
            if len(scenes) == 1:
                raise
            command.say(f"not mapped: {error}", file=sys.stderr)
            failed += 1
    if group:
        dist.all_reduce(failed, group=group)
    require(not failed, f"{failed} of {len(scenes)} scenes could not be mapped, as said above; the others are done")


@torch.inference_mode()
def map_scene(trained, path, outputs, arguments, device):
    """One scene to its map, and its probabilities where there is a second output; raises Refused."""
    started, facts, classes = time.perf_counter(), trained.facts, trained.facts["classes"]
    with ExitStack() as stack:
        scene = stack.enter_context(Raster(path, threads="ALL_CPUS"))
        limits = require_fitting(scene, facts)
        scene = at_size(scene, facts, arguments.resample, stack)
        windows = (window_starts(side, arguments.window, arguments.overlap) for side in scene.size)
        (rows, height), (cols, width) = windows
        coarse = None
        if arguments.coarse:
            raster = stack.enter_context(Raster(arguments.coarse))
            labels, n = trained.coarse_labels(), facts["scale"]
            coarse = Overlay(raster, scene, labels, n, arguments.same_crs, side=arguments.window)

        # Read ahead, through the network, blend, write behind. The writer's thread takes the blocks off the device.
        windows, behind = read_windows(scene, rows, cols, height, width, facts["bands"], limits), deque()
        blend, held = Blend(len(classes), rows, cols, height, width, device), 0
        with ExitStack() as work:
            codes, colors = codes_in_words(c["name"] for c in classes), [c["color"] for c in classes]
            writers = [work.enter_context(MapWriter(outputs[0], scene, [codes], colors))]
            if arguments.probs:
                writers.append(work.enter_context(MapWriter(outputs[1], scene, [c["name"] for c in classes])))
            reading, writing = (work.enter_context(ThreadPoolExecutor(1)) for _ in range(2))
            bar = work.enter_context(tqdm(total=len(rows) * len(cols), unit="window", desc=path.name, disable=None))
            for i, j, pixels, void, beyond in read_ahead(windows, reading, AHEAD):
                if pixels is None:  # no work for the network
                    probs = torch.zeros(len(classes), height, width, device=device)
                else:
                    cells = coarse and coarse.window(rows[i], cols[j], height, width)
                    probs = predict(trained, pixels, void, device, arguments, cells, coarse and coarse.cell_px)
                block = blend.add(i, j, probs)
                made = [block.max(dim=0).indices.to(torch.uint8)]  # argmax takes seven times as long on a CPU
                if arguments.probs:
                    made.append((block * CERTAIN).round().to(torch.uint8))
                for writer, numbers in zip(writers, made, strict=True):
                    behind.append(writing.submit(writer.put, numbers, void, rows[i], cols[j]))
                while len(behind) > len(writers):  # those of the window before
                    behind.popleft().result()
                held += beyond
                bar.update()
            for write in behind:
                write.result()
        if held:
            share, (low, high) = held / (len(rows) * len(cols) * height * width), limits
            command.say(f"note: {path}: {share:.1%} of its pixels lie outside {low:g} to {high:g} and are clipped")
        seconds = time.perf_counter() - started
        (height, width), rate = scene.size, math.prod(scene.size) / 1e6 / seconds
        command.say(f"{outputs[0]}: {height} x {width} px in {seconds:.1f} s, {rate:.2f} megapixels/s")
        if not arguments.no_preview:
            save_preview(outputs[0], scene, facts["bands"], classes)


def read_ahead(items, pool, count):
    """The items of an iterator, made by the pool's one thread, up to `count` before they are asked for."""
    pending = deque(pool.submit(next, items, None) for _ in range(count))
    while (item := pending.popleft().result()) is not None:
        pending.append(pool.submit(next, items, None))
        yield item


def predict(trained, pixels, void, device, arguments, cells=None, cell_px=None):
    """Class probabilities (C, height, width) of a window as `read_windows` yields it.

    cells, cell_px: its coarse labels as `Overlay.window` gives them, and pixels of a whole cell; None without --coarse
    """
    _, autocast, _ = distributed.mixed_precision(arguments.precision, device)
    image = to_device(to_tensor(pixels)[None], device)
    image = normalize(image.permute(0, 3, 1, 2), trained.mean, trained.std)

    def network(view):
        with autocast:
            return trained.segmenter(view)

    probs = mean_over_views(lambda view: probabilities(network(view)), image) if arguments.tta else None
    if cells is None:
        return (probabilities(network(image)) if probs is None else probs)[0]
    logits = network(image) if probs is None else probs.clamp_(min=1e-9).log_()
    void = None if void is None else torch.from_numpy(void)[None].to(device)
    return probabilities(trained.informed(logits, to_device(stack_cells([cells]), device), cell_px, void))[0]


def output_paths(scenes, out, with_probs):
    """Of each scene, the files to write: (map,) or (map, probabilities). raises: Refused where two would be one."""
    is_file = out.suffix.lower() in (".tif", ".tiff") and not out.is_dir()
    if is_file and len(scenes) != 1:
        raise Refused(f"--out {out}: names one file, and there are {len(scenes)} scenes; give a folder")
    maps = [out] if is_file else [out / f"{scene.stem}.tif" for scene in scenes]
    outputs = [(m, m.with_name(f"{m.stem}_probs.tif")) if with_probs else (m,) for m in maps]
    taken = {scene.resolve() for scene in scenes}
    for file in (file for files in outputs for file in files):
        if file.resolve() in taken:
            raise Refused(f"{file}: would overwrite a scene or another scene's map; change --out, or map one by one")
        taken.add(file.resolve())
    return outputs


def parse(argv=None):
    parser = command.parser(__doc__)
    add = parser.add_argument
    add("checkpoint", metavar="CHECKPOINT", help="best.pt, last.pt or a run's folder")
    add("scenes", nargs="+", metavar="SCENE")
    add("--out", type=Path, required=True, metavar="FILE_OR_DIR", help="MAP.tif or a folder")
    add("--probs", action="store_true", help="write class probabilities too")
    add("--coarse", type=Path, metavar="RASTER", help="use this coarse map of the place too [ours]")
    add("--same-crs", action="store_true", help="take scene and --coarse as one coordinate system, whatever they say")
    add("--resample", action="store_true", help="resample the scene to the pixel size of the training images")
    add("--overwrite", action="store_true", help="replace existing maps")
    add("--tta", action="store_true", help="average the eight dihedral views: eight times the work")
    add("--no-preview", action="store_true", help="write no MAP_preview.png")
    add("--window", type=int, default=1024, metavar="PX", help="(default: 1024)")
    add("--overlap", type=int, default=128, metavar="PX", help="of neighbouring windows (default: 128)")
    add("--precision", default="auto", choices=("auto", "bf16", "fp16", "off"), help="(default: auto)")
    add("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"), help="(default: auto)")
    arguments = parser.parse_args(argv)
    if arguments.window % ALIGN or arguments.overlap % ALIGN:
        parser.error(f"--window and --overlap must be multiples of {ALIGN}")
    command.require_options(vars(arguments), window=ALIGN, overlap=(0, arguments.window // 2))
    return arguments


if __name__ == "__main__":
    command.run(lambda: main(parse()), distributed.stop)
