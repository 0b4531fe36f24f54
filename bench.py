"""How fast each stage is, side by side with what users would pick instead and with what the machine can do.

    python bench.py --out bench.json                 # minutes on two CPU cores; two of them are torch.compile's
    python bench.py --stages 1,2 --no-compile
    python bench.py --stages 4,8 --data tiles        # on a tile set of your own instead of made-up tiles
    python bench.py --loaded                         # the same step and mapping beside a busy process a core
    python bench.py --gpu-report report.json --naip215 RAW_DIR_OR_TILES       # all that a GPU is to say, in 20 minutes

Peers are extras: pip install segmentation_models_pytorch timm rasterio. One that is missing is named and skipped. A
figure is the median over repeats after a warm-up, ours and the peer's by turns; ratio is ours / peer. Beside the JSON
of --out and --gpu-report the same table is written as Markdown.

Stages: 1 training step, 2 supervision, 3 region aggregation, 4 input, 5 masked autoencoder, 6 scene prediction,
7 building, 8 processes, 9 a busy machine, 10 a row on real NAIP at full width (--naip215). Of 1 to 8, all by default.
"""

import json
import os
import platform
import re
import statistics
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import tifffile
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from config import DataConfig, PretrainConfig, SegmenterConfig
from data.cells import majority_blocks
from data.loading import training_batches
from data.prepare.cutting import Options, cut_scene
from data.prepare.sources import Scene
from data.prepare.tile_set import TAXONOMIES
from data.rasters import geotiff
from data.samples import TrainingTiles, regions
from data.synthetic.coarse import low_label
from data.synthetic.landscape import landscape
from data.taxonomy import load_taxonomy
from data.tile_writer import write_tile, write_tile_set
from data.tiles import TileSet
from maps.windows import window_starts
from measuring import COLUMNS, Bench, busy_processes, print_row, run_command, shipped, tiles_per_second, write_report
from models import UNet, build_mae
from models.mae import SIZES
from models.regions import aggregate_logits, sums_by_index
from models.vit import Transformer
from runtime import checkpoint, command, distributed
from runtime.settings import config_from_flat, flatten, require
from runtime.workers import default_workers

CELL_PX, WIDTH = 30, 64  # of the paper
TILES = 16  # of the tile set that is made up where --data gives none
SCENE_TILES = {"cpu": 24, "cuda": 40, "mps": 24}  # along a scene's side: 12,288 px are a quarter quadrangle at 0.6 m
# How threads wait: as torch has it, which spins; asleep; and not at all.
WAYS = {"as shipped": {}, "sleeping": {"OMP_WAIT_POLICY": "passive"}, "one thread": {"OMP_NUM_THREADS": "1"}}
GPU_STAGES, GPU_MINUTES = "1,6,10,2,3,5,4,7,8", 20  # what a report needs most comes first; none begins after so long


def training_step(bench):
    """Stage 1: ours as shipped is what train_seg.py records (shipped); the plain loop is the same for both."""
    smp, device = bench.peer(1, "segmentation_models_pytorch"), bench.device
    tiles = TileSet(made_up(bench), "train")
    bands, classes = tiles.description.bands, len(tiles.description.taxonomy.names)
    precision, autocast, _ = distributed.mixed_precision("auto", device)  # of both: bf16 where it is not emulated

    def plain(kind, batch, compiled=False):
        if kind == "ours":
            network = UNet(bands, classes, WIDTH)
        else:
            network = smp.Unet("resnet18", encoder_weights=None, in_channels=bands, classes=classes)
        network = network.to(device).train()
        optimizer = torch.optim.Adam(network.parameters(), 1e-4)
        images = torch.randn(batch, bands, bench.px, bench.px, device=device)
        labels = torch.randint(classes, (batch, bench.px, bench.px), device=device)
        network = torch.compile(network) if compiled else network

        def step():
            with autocast:
                loss = F.cross_entropy(network(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        return step

    batch = fitting_batch(bench, plain)
    with FlopCounterMode(display=False) as counter:
        plain("ours", 1)()
    limit = matrix_rate(bench, torch.bfloat16 if precision == "bf16" else torch.float32) / counter.get_total_flops()
    before = bench.rates(batch, smp and plain("smp", batch), plain("ours", batch))
    (bench.needed,) = shipped(bench, made_up(bench), batch, ["high"])
    after = bench.rates(batch, smp and plain("smp", batch), plain("ours", batch))
    peer, eager = (b and (b + a) / 2 for b, a in zip(before, after, strict=True))
    unit, name = f"tiles/s, batch {batch}", f"smp.Unet('resnet18'), {precision}"
    bench.row(1, f"as shipped (precision {precision})", bench.needed, peer, unit, name, limit)
    bench.row(1, "eager, in the peer's loop", eager, peer, unit, name, limit)
    if bench.compile:
        fast = bench.rates(batch, plain("ours", batch, True), smp and plain("smp", batch, True))
        bench.row(1, "compiled, in the peer's loop", *fast, unit, f"{name}, compiled", limit)
    else:
        bench.skipped.append("stage 1: the compiled pair, as --no-compile asks")


def supervision(bench):
    """Stage 2: what the supervision of each row adds to a step of High."""
    batch, names = 4 if bench.on_cpu else 32, {"high": "High", "low": "Low", "agg": "Agg", "agg_app": "Agg+App"}
    high, *others = (1e3 * batch / rate for rate in shipped(bench, made_up(bench), batch, names))
    for name, spent in zip(list(names.values())[1:], others, strict=True):
        bench.row(2, f"step of {name}", spent, high, f"ms, batch {batch}", "step of High")


def aggregation(bench):
    """Stage 3: region sums alone, against one pass over the logits."""
    count, whole = 8, (bench.px // CELL_PX) ** 2
    logits = torch.randn(count, 4, bench.px, bench.px, device=bench.device)
    cells = majority_blocks(np.zeros((bench.px, bench.px), np.uint8), CELL_PX, 4)
    index = torch.from_numpy(regions(cells.to_cell, cells.labels.shape, bench.px, bench.px)[0])
    index = index.expand(count, -1, -1).contiguous().to(bench.device)
    calls = (
        lambda: aggregate_logits(logits, index, whole),
        lambda: sums_by_index(logits, index, whole),
        lambda: logits.sum(dim=(2, 3)),
    )
    pooling, by_index, once = (1e3 / rate for rate in bench.rates(1, *calls, repeats=10 * bench.repeats))
    for what, spent in (("blocks", pooling), ("pixels", by_index)):
        bench.row(3, f"region sums by {what}", spent, once, f"ms, batch {count}", "the sum of all logits", once)


def input_tiles(bench):
    """Stage 4: tiles from disk, from the loader, and how long a training loop waits for them."""
    rasterio = bench.peer(4, "rasterio")
    os.environ["GDAL_NUM_THREADS"] = "1"
    tiles = TileSet(tile_set(bench), "train")
    paths = [tiles.root / row["image"] for row in tiles.rows[:64]]
    for compression in ("zlib", "none"):
        copies = [bench.folder / f"{compression}_{i}.tif" for i in range(len(paths))]
        for path, copy in zip(paths, copies, strict=True):
            place = {"transform": (1, 0, 0, 0, -1, 0), "epsg": 32618}
            geotiff.write(copy, geotiff.read(path)[0], compression=compression, **place)
        theirs = rasterio and (lambda files=copies: rasterio_reads(rasterio, files))
        rates = bench.rates(len(copies), lambda files=copies: [geotiff.read(file) for file in files], theirs)
        what = f"reading tiles, {'raw' if compression == 'none' else compression}"
        bench.row(4, what, *rates, "tiles/s, one core", "rasterio")

    batch, steps, data = 4 if bench.on_cpu else 32, 4 * bench.repeats, DataConfig()
    options = {"dihedral": data.dihedral, "gain": data.gain, "offset": data.offset}
    samples = TrainingTiles(tiles, "low_regions", 1.0, batch_size=batch, seed=0, **options)
    (rate,) = bench.rates(batch, lambda: samples.collate([samples[0, i] for i in range(batch)]))
    bench.row(4, "loader with augmentation", rate, bench.needed, "tiles/s, one core", "what stage 1 takes")
    batches = training_batches(samples, 0, steps + 1, batch, batch, 0, data.workers, pin_memory=not bench.on_cpu)
    next(batches)  # the start of the workers comes once a run
    started = time.perf_counter()
    count = sum(len(loaded["image"]) for loaded in batches)
    rate = count / (time.perf_counter() - started)
    bench.row(4, f"loader, {data.workers} workers", rate, bench.needed, "tiles/s", "what stage 1 takes")


def autoencoder(bench):
    """Stage 5: encoder on visible tokens and decoder on all, from tokens on, against timm's blocks, as many and as
    wide; then the whole step, whose ResNet-18 embedding timm does not have."""
    timm, device, batch = bench.peer(5, "timm.models.vision_transformer"), bench.device, 1 if bench.on_cpu else 32
    tokens = (bench.px // 16) ** 2
    sizes = {"encoder": tokens - round(0.75 * tokens), "decoder": tokens}
    _, autocast, _ = distributed.mixed_precision("auto", device)

    def theirs(width, depth, heads):
        return nn.Sequential(*(timm.Block(width, heads, qkv_bias=True) for _ in range(depth)), nn.LayerNorm(width))

    def stepping(network, forward):
        network.train()
        optimizer = torch.optim.AdamW(network.parameters(), 1e-4, fused=device.type != "mps")

        def step():
            with autocast:
                loss = forward()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        return step

    def transformers(make):
        parts = nn.ModuleList([make(*SIZES["base"][part]) for part in sizes]).to(device)
        inputs = [torch.randn(batch, n, SIZES["base"][part][0], device=device) for part, n in sizes.items()]
        return stepping(parts, lambda: sum(p(x).square().mean() for p, x in zip(parts, inputs, strict=True)))

    mae = build_mae(PretrainConfig(), 3).to(device, memory_format=torch.channels_last)
    images = torch.randn(batch, 3, bench.px, bench.px, device=device).contiguous(memory_format=torch.channels_last)
    noise = torch.rand(batch, tokens, device=device)
    whole = stepping(mae, lambda: mae(images, noise)[0])
    ours, peer, step = bench.rates(batch, transformers(Transformer), timm and transformers(theirs), whole)
    unit = f"images/s, batch {batch}"
    bench.row(5, "transformers of the MAE step", ours, peer, unit, "timm's blocks")
    bench.row(5, "MAE step, embedding included", step, None, unit, "")


def prediction(bench):
    """Stage 6: predict.py from the shell to the last byte, once over one large scene; against its network on windows as
    large as its own that lie in memory, as many as its windows are."""
    side, window = SCENE_TILES[bench.device.type] * bench.px, 2 * bench.px
    overlap = max(32, bench.px // 128 * 32)
    times, scene, run = side // bench.px, bench.folder / "scene.tif", bench.folder / "segmenter.pt"
    tile = landscape(np.random.default_rng(0), bench.px)[0]
    place = {"transform": (1, 0, 0, 0, -1, 0), "epsg": 32618}
    geotiff.write(scene, np.tile(tile, (times, times, 1)), compression="none", **place)
    network = save_segmenter(run, TileSet(tile_set(bench), "train").description, WIDTH)
    network = network.to(bench.device, memory_format=torch.channels_last).eval()
    _, autocast, _ = distributed.mixed_precision("auto", bench.device)
    images = torch.randn(4, 3, window, window, device=bench.device).contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def alone():
        with autocast:
            for image in images:
                network(image[None])

    def program():
        words = ["--out", bench.folder / "map.tif", "--window", window, "--overlap", overlap]
        run_command("predict.py", run, scene, *words, "--device", bench.device.type)

    windows, megapixels = len(window_starts(side, window, overlap)[0]) ** 2, side**2 / 1e6
    before = bench.rates(4 * megapixels / windows, alone)
    started = time.perf_counter()
    program()
    ours = megapixels / (time.perf_counter() - started)
    peer = statistics.mean(before + bench.rates(4 * megapixels / windows, alone))
    bench.row(6, f"predict.py, {side} x {side} px", ours, peer, "megapixels/s", "the network alone")


def save_segmenter(path, description, width):
    """A checkpoint of random weights; returns the network."""
    config = config_from_flat(SegmenterConfig, {"model.width": width})
    network = UNet(description.bands, len(description.taxonomy.names), width)
    state = {"config": flatten(config), "data": description.facts(), "segmenter": network.state_dict(), "step": 0}
    checkpoint.save(path, state)
    return network


def building(bench):
    """Stage 7: a scene stored as the raw Chesapeake set is (LZW, few rows a strip), cut into raw tiles on one core."""
    rasterio, side = bench.peer(7, "rasterio"), 4 * bench.px
    rng, paths = np.random.default_rng(0), {}
    image, high = (np.tile(a, (4, 4, 1)[: a.ndim]) for a in landscape(rng, bench.px, 4))
    low = low_label(rng, high, CELL_PX)
    for kind, array, cell in (("image", image, 1), ("high", high, 1), ("low", low, CELL_PX)):
        paths[kind] = bench.folder / f"scene_{kind}.tif"
        layout = geotiff.page_layout(array.shape[2] if array.ndim == 3 else 1, array.dtype)
        tags = geotiff.geo_tags(paths[kind], array.dtype, transform=(cell, 0, 0, 0, -cell, 0), epsg=32618)
        tifffile.imwrite(paths[kind], array, compression="lzw", rowsperstrip=7, extratags=tags, **layout)
    taxonomy = load_taxonomy(TAXONOMIES / "low2high.yaml")
    options = Options("scenes", taxonomy, bench.px, CELL_PX, filter=False, compression="none")
    ours = lambda: cut_scene(tempfile.mkdtemp(dir=bench.folder), Scene("scene", "a", **paths), options)  # noqa: E731
    rates = bench.rates(side**2 / 1e6, ours, rasterio and (lambda: rasterio_reads(rasterio, paths.values())))
    bench.row(7, "building raw tiles", *rates, "megapixels/s, one core", "rasterio reading the same")


def processes(bench):
    """Stage 8: train_seg.py under torchrun: on a CPU two processes on the cores of one, else one process a GPU."""
    worlds = [2] if bench.on_cpu else sorted({2, torch.cuda.device_count()})
    if not bench.on_cpu and torch.cuda.device_count() < 2:
        bench.skipped.append("stage 8: there are not several GPUs here")
        return
    batch, cores = 4 if bench.on_cpu else 16 * worlds[-1], torch.get_num_threads()
    (one,) = shipped(bench, tile_set(bench), batch, ["agg"])
    for world in worlds:
        threads = max(1, cores // world) if bench.on_cpu else 4
        (rate,) = shipped(bench, tile_set(bench), batch, ["agg"], world, threads)
        limit = one * (1 if bench.on_cpu else world)
        bench.row(8, f"training on {world} processes", rate, one, f"tiles/s, batch {batch}", "1 process", limit)


def busy_machine(bench):
    """Stage 9: the demo's step and the mapping of 4 megapixels by a network as narrow, the machine as it is and beside
    a busy process a core; each in the ways in which threads may wait, by turns. On a CPU."""
    if not bench.on_cpu:
        bench.skipped.append("stage 9: is of CPUs; --device cpu")
        return
    root, scene, run = made_up(bench, 128), bench.folder / "small.tif", bench.folder / "narrow.pt"
    tile = landscape(np.random.default_rng(0), bench.px)[0]
    times = max(1, 2048 // bench.px)
    geotiff.write(scene, np.tile(tile, (times, times, 1)), compression="none")
    save_segmenter(run, TileSet(root, "train").description, 16)

    def mapping(environment):
        done = run_command("predict.py", run, scene, "--out", bench.folder / "small_map.tif", "--device", "cpu",
                           "--no-preview", **environment)  # fmt: skip
        (bench.folder / "small_map.tif").unlink()
        return np.prod(tile.shape[:2]) * times**2 / 1e6 / float(re.search(r" px in ([\d.]+) s", done)[1])

    for where, count in (("idle", 0), ("busy", default_workers())):
        steps, maps = {way: [] for way in WAYS}, {way: [] for way in WAYS}
        with busy_processes(count):
            for _ in range(2):
                for way, environment in WAYS.items():
                    steps[way] += shipped(bench, root, 8, ["demo/agg"], turns=1, **environment)
                    maps[way].append(mapping(environment))
        for what, unit, found in (("training", "tiles/s, batch 8", steps), ("mapping", "megapixels/s", maps)):
            rates = {way: statistics.mean(values) for way, values in found.items()}
            for way in ("sleeping", "one thread"):
                bench.row(9, f"{what}, {where}, {way}", rates[way], rates["as shipped"], unit, "threads that spin")


def naip(bench):
    """Stage 10: row Agg on real NAIP at the paper's width, rotation 0 or the tile set given: speed and scores."""
    if not bench.naip215:
        bench.skipped.append("stage 10: needs --naip215, the raw set or a tile set of it")
        return
    root, run, began = bench.naip215, bench.folder / "naip_agg", time.perf_counter()
    if not (root / "dataset.yaml").exists():
        root = bench.folder / "naip"
        run_command("-m", "data.prepare", root, "--naip215", bench.naip215, "--rotation", 0, "--compression", "none")
    words = [f"data.root={root}", "data.workers=4", f"model.width={WIDTH}", f"run.device={bench.device.type}"]
    run_command("train_seg.py", "configs/naip215/agg.yaml", *words, f"run.dir={run}")
    minutes = (time.perf_counter() - began) / 60
    run_command("evaluate.py", run, "--device", bench.device.type, "--out", bench.folder / "scores.json")
    (row,) = json.loads((bench.folder / "scores.json").read_text())["rows"]
    what = f"NAIP, Agg, width {WIDTH}"
    bench.row(10, f"{what}: training", statistics.median(tiles_per_second(run)), None, "tiles/s, batch 8", "")
    bench.row(10, f"{what}: building and training", minutes, None, "minutes", "")
    bench.row(10, f"{what}: test mIoU", 100 * row["miou"], None, "%", "")


def fitting_batch(bench, plain):
    """4 on a CPU; on a GPU the power of two, up to 128, that its memory holds."""
    for batch in (128, 64, 32, 16, 8) if bench.device.type == "cuda" else ():
        try:
            plain("ours", batch)()
            return batch // 2  # stage 1 keeps several networks at a time
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
    return 4


def matrix_rate(bench, dtype):
    """Operations a second of a large product in the plain loop's precision."""
    n = 2048 if bench.on_cpu else 8192
    a, b = (torch.randn(n, n, device=bench.device, dtype=dtype) for _ in range(2))
    return bench.rates(2 * n**3, lambda: a @ b, repeats=10)[0]


def tile_set(bench):
    """--data, or a made-up tile set."""
    return bench.data or made_up(bench)


def made_up(bench, px=None):
    """A tile set of one epoch of TILES - 2 tiles, made once for each size of tile."""
    px = px or bench.px
    root = bench.folder / f"tiles_{px}"
    if not root.exists():
        taxonomy, records = load_taxonomy(TAXONOMIES / "low2high.yaml"), []
        for i, split in enumerate(["validation", "heldout", *["train"] * (TILES - 2)]):
            rng = np.random.default_rng([0, i])
            image, high = landscape(rng, px)
            facts = {"taxonomy": taxonomy, "region": "a", "split": split}
            low, place = low_label(rng, high, CELL_PX), (CELL_PX, 0, 0, 0, -CELL_PX, 0)
            records.append(write_tile(root, f"t{i}", image, high, low, low_transform=place, **facts))
        with redirect_stdout(None):
            facts = {"image_gsd": 1.0, "scale": CELL_PX, "tile_px": px, "seed": 0}
            write_tile_set(root, name="bench", taxonomy=taxonomy, records=records, **facts)
    return root


def rasterio_reads(rasterio, paths):
    for path in paths:
        with rasterio.open(path) as file:
            file.read()


STAGES = (training_step, supervision, aggregation, input_tiles, autoencoder, prediction, building, processes,
          busy_machine, naip)  # fmt: skip


def main(arguments):
    out, began = arguments.gpu_report or arguments.out, time.perf_counter()
    if arguments.gpu_report:
        require(torch.cuda.is_available(), "--gpu-report: torch sees no GPU here, and the report is of one")
        arguments.stages, arguments.device = GPU_STAGES, "cuda"
    stages = "9" if arguments.loaded else arguments.stages
    chosen = stages.split(",")
    named = all(word in map(str, range(1, len(STAGES) + 1)) for word in chosen)
    require(named, f"--stages {stages}: give some of 1 to 10, as 1,3,4")
    require(arguments.repeats >= 1, f"--repeats {arguments.repeats}: must be 1 or more")
    nearest = max(2, round(arguments.px / 32)) * 32
    require(arguments.px == nearest, f"--px {arguments.px}: must be a multiple of 32 from 64 up, as {nearest}")
    device = distributed.start(arguments.device).device
    torch.manual_seed(0)
    facts = {"device": torch.cuda.get_device_name() if device.type == "cuda" else device.type, "px": arguments.px,
             "threads": torch.get_num_threads(), "torch": torch.__version__, "python": platform.python_version(),
             "repeats": arguments.repeats}  # fmt: skip
    print(", ".join(f"{key} {value}" for key, value in facts.items()))
    print_row(*COLUMNS)
    with tempfile.TemporaryDirectory() as folder:
        data = arguments.data and arguments.data.resolve()
        naip215 = arguments.naip215 and arguments.naip215.resolve()
        bench = Bench(
            device, arguments.repeats, arguments.px, not arguments.no_compile, data, Path(folder), [], [], naip215
        )
        for stage in dict.fromkeys(map(int, chosen)):
            if arguments.gpu_report and time.perf_counter() - began > 60 * GPU_MINUTES:
                bench.skipped.append(f"stage {stage}: {GPU_MINUTES} minutes are over; --stages {stage} makes up for it")
                continue
            STAGES[stage - 1](bench)
            if out:  # after each stage: what a time limit cuts off is not all
                write_report(out, facts, bench)
    for line in bench.skipped:
        print(f"skipped: {line}")
    if out:
        write_report(out, facts, bench)


def parsed():
    parser = command.parser(__doc__)
    parser.add_argument("--out", type=command.place, metavar="JSON", help="also write the table there")
    parser.add_argument("--stages", default="1,2,3,4,5,6,7,8", help="some of 1 to 10, as 1,3,4 (default: 1 to 8)")
    parser.add_argument("--loaded", action="store_true", help="stage 9 alone")
    parser.add_argument("--gpu-report", type=command.place, metavar="JSON", help="all but stage 9, on a GPU; as --out")
    parser.add_argument("--naip215", type=Path, metavar="DIR", help="of stage 10: the raw set, or a tile set of it")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"))
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="of each figure (default 5)")
    parser.add_argument("--px", type=int, default=512, help="side of a tile (default 512)")
    parser.add_argument("--no-compile", action="store_true", help="leave out the compiled pair of stage 1")
    parser.add_argument("--data", type=Path, metavar="ROOT", help="a tile set with all splits; default: made up")
    return parser.parse_args()


if __name__ == "__main__":
    command.run(lambda: main(parsed()), distributed.stop)
