"""How fast each stage is, side by side with what users would pick instead.

    python -m tools.bench --out bench.json         # minutes on two CPU cores
    python -m tools.bench --stages 3 --data tiles  # on a tile set of your own instead of made-up tiles

Stages: 1 training step, 2 supervision, 3 scene prediction, 4 reading tiles. Stage 1 compares with an extra, and leaves
its column empty where that is missing: pip install segmentation_models_pytorch. Stages 3 and 4 need rasterio. A figure
is the median over repeats after a warm-up, ours and the peer's by turns; ratio is ours / peer.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from config import SegmenterConfig
from data import tile_io
from data.manifest import read_description
from data.rasters import gdal
from data.tiles import TileSet
from maps.windows import window_starts
from models import UNet
from runtime import checkpoint, command, distributed
from runtime.children import ROOT
from runtime.errors import require
from runtime.files import write_text
from runtime.settings import config_from_flat, flatten

COLUMNS = "stage", "what", "ours", "peer", "ratio", "unit", "peer_name"
CELL_PX, WIDTH = 30, 64  # of the paper
TILES = 24  # of the tile set that is made up where --data gives none
WINDOW, OVERLAP = 1024, 128  # of predict.py
REPEATS = 5  # of each figure


class Bench:
    """What all stages share. rows: the table"""

    def __init__(self, arguments, device, folder):
        self.device, self.px, self.folder, self.rows = device, arguments.px, folder, []
        self.batch = 4 if device.type == "cpu" else 32
        self.root = arguments.data and arguments.data.resolve()

    def tiles(self):
        """The training split of --data, or of a made-up tile set."""
        if self.root is None:
            self.root = self.folder / "tiles"
            run_command("-m", "data.synthetic", self.root, "--tiles", TILES, "--tile-px", self.px, "--scale", CELL_PX)
        return TileSet(self.root, "train")

    def row(self, stage, what, ours, peer, unit, peer_name):
        values = stage, what, ours, peer, ours / peer if peer else None, unit, peer_name
        self.rows.append(dict(zip(COLUMNS, values, strict=True)))
        print_row(*values)

    def rates(self, count, *calls):
        """`count` a call -> how many a second each call does, by turns; None for a call that is None."""
        spent = [[] for _ in calls]
        for turn in range(REPEATS + 1):
            for call, times in zip(calls, spent, strict=True):
                if call:
                    self.wait()
                    started = time.perf_counter()
                    call()
                    self.wait()
                    times += [time.perf_counter() - started] if turn else []
        return [count / statistics.median(times) if times else None for times in spent]

    def wait(self):
        if self.device.type != "cpu":
            getattr(torch, self.device.type).synchronize()


def training_step(bench):
    """Stage 1: ours as shipped is what train_seg.py records; the plain loop is the same for both."""
    try:
        import segmentation_models_pytorch as smp
    except ImportError:
        smp = None
    device, batch, description = bench.device, bench.batch, bench.tiles().description
    bands, classes = description.bands, len(description.taxonomy.names)
    precision, autocast, _ = distributed.mixed_precision("auto", device)  # of both: bf16 where it is not emulated

    def plain(network):
        network = network.to(device).train()
        optimizer = torch.optim.Adam(network.parameters(), 1e-4)
        images = torch.randn(batch, bands, bench.px, bench.px, device=device)
        labels = torch.randint(classes, (batch, bench.px, bench.px), device=device)

        def step():
            with autocast:
                loss = F.cross_entropy(network(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        return step

    theirs = smp and plain(smp.Unet("resnet18", encoder_weights=None, in_channels=bands, classes=classes))
    peer, eager = bench.rates(batch, theirs, plain(UNet(bands, classes, WIDTH)))
    (shipped,) = training_rates(bench, ["high"])
    unit, name = f"tiles/s, batch {batch}", f"smp.Unet('resnet18'), {precision}"
    bench.row(1, f"as shipped (precision {precision})", shipped, peer, unit, name)
    bench.row(1, "eager, in the peer's loop", eager, peer, unit, name)


def supervision(bench):
    """Stage 2: what the supervision of each row adds to a step of High."""
    names = {"high": "High", "low": "Low", "agg": "Agg", "agg_app": "Agg+App"}
    high, *others = (1e3 * bench.batch / rate for rate in training_rates(bench, names))
    for name, spent in zip(list(names.values())[1:], others, strict=True):
        bench.row(2, f"step of {name}", spent, high, f"ms, batch {bench.batch}", "step of High")


def prediction(bench):
    """Stage 3: predict.py from the shell to the last byte, once over one large scene; against its network on as many
    windows of the same size that lie in memory."""
    side, scene, run, tiles = 12 * WINDOW, bench.folder / "scene.tif", bench.folder / "segmenter.pt", bench.tiles()
    bands, classes, tile = tiles.description.bands, len(tiles.description.taxonomy.names), tiles.load(0).image
    times = -(-side // len(tile))
    place = {"affine": (1.0, 0.0, 3e5, 0.0, -1.0, 4.3e6), "system": tile_io.epsg_system(32618)}
    tile_io.write(scene, np.tile(tile, (times, times, 1))[:side, :side], **place)
    network = UNet(bands, classes, WIDTH)
    config = flatten(config_from_flat(SegmenterConfig, {"model.width": WIDTH}))
    checkpoint.save(run, {"config": config, "data": tiles.description.facts(), "segmenter": network.state_dict()})
    network = network.to(bench.device, memory_format=torch.channels_last).eval()
    _, autocast, _ = distributed.mixed_precision("auto", bench.device)
    images = torch.randn(4, bands, WINDOW, WINDOW, device=bench.device).contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def alone():
        with autocast:
            for image in images:
                network(image[None])

    windows, megapixels = len(window_starts(side, WINDOW, OVERLAP)[0]) ** 2, side**2 / 1e6
    before = bench.rates(4 * megapixels / windows, alone)
    started = time.perf_counter()
    run_command("predict.py", run, scene, "--out", bench.folder / "map.tif", "--device", bench.device.type)
    ours = megapixels / (time.perf_counter() - started)
    peer = statistics.mean(before + bench.rates(4 * megapixels / windows, alone))
    bench.row(3, f"predict.py, {side} x {side} px", ours, peer, "megapixels/s", "the network alone")


def reading(bench):
    """Stage 4: pixels and places of tiles by data/tile_io.py, on one core; against rasterio on the same files."""
    rasterio, tiles = gdal(), bench.tiles()
    images = [tile_io.read(tiles.root / row["image"]) for row in tiles.rows[:TILES]]
    paths = [bench.folder / f"{i}.tif" for i in range(len(images))]

    def ours():
        return [tile_io.read(path) for path in paths]

    def theirs():
        for path in paths:
            with rasterio.open(path) as file:
                file.read(), file.transform

    for compression in ("zlib", "none"):
        for path, image in zip(paths, images, strict=True):
            tile_io.write(path, image.pixels, affine=image.affine, system=image.system, compression=compression)
        peer, rate = bench.rates(len(paths), theirs, ours)
        bench.row(4, f"{bench.px} px, {compression}", rate, peer, "tiles/s, one core", "rasterio")


def training_rates(bench, rows, turns=2):
    """train_seg.py with the configs of these rows of configs/low2high, by turns: tiles/s, the median of its records."""
    tiles, found = bench.tiles(), {row: [] for row in rows}
    steps, every = (8, 1) if bench.device.type == "cpu" else (40, 5)  # on a GPU a record waits for what is under way
    epochs = -(-steps // -(-len(tiles) // bench.batch))
    words = [f"data.root={tiles.root}", f"run.device={bench.device.type}", f"run.log_every={every}",
             f"train.epochs={epochs}", "train.eval_every=1000000", f"train.batch_size={bench.batch}",
             f"model.width={WIDTH}"]  # fmt: skip
    for _ in range(turns):
        for row, rates in found.items():
            run_dir = bench.folder / "run"
            run_command("train_seg.py", f"configs/low2high/{row}.yaml", *words, f"run.dir={run_dir}")
            records = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
            rates += [r["tiles_per_second"] for r in records[1:] if r["kind"] == "train"]  # the first step warms up
            shutil.rmtree(run_dir)
    return [statistics.median(rates) for rates in found.values()]


def run_command(*words):
    words = [sys.executable, *map(str, words)]
    environment = {"OMP_NUM_THREADS": str(torch.get_num_threads()), **os.environ}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
    require(not done.returncode, f"{' '.join(words[1:3])} failed: {(done.stderr.strip().splitlines() or ['?'])[-1]}")


def print_row(*cells):
    words = (c if isinstance(c, str) else "" if c is None else f"{c:.3g}" if c < 100 else f"{c:,.0f}" for c in cells)
    print("{:>5}  {:<34} {:>8} {:>8} {:>6}  {:<18} {}".format(*words).rstrip(), flush=True)


STAGES = {"1": training_step, "2": supervision, "3": prediction, "4": reading}


def main(arguments):
    chosen = arguments.stages.split(",")
    require({*chosen} <= STAGES.keys(), f"--stages {arguments.stages}: give some of 1 to 4, like 1,3")
    if arguments.data:
        arguments.px = read_description(arguments.data).tile_px
    device = distributed.start(arguments.device).device
    name = torch.cuda.get_device_name() if device.type == "cuda" else device.type
    facts = {"device": name, "px": arguments.px, "threads": torch.get_num_threads(), "torch": torch.__version__}
    print(", ".join(f"{key} {value}" for key, value in facts.items()))
    print_row(*COLUMNS)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(arguments, device, Path(folder))
        for stage in chosen:
            STAGES[stage](bench)
            if arguments.out:  # after each stage: what a time limit cuts off is not all
                write_text(arguments.out, json.dumps({**facts, "rows": bench.rows}, indent=1))


def parse():
    parser = command.parser(__doc__, "python -m tools.bench")
    parser.add_argument("--out", type=Path, metavar="JSON", help="also write the table there")
    parser.add_argument("--stages", default="1,2,3,4", help="some of 1 to 4, like 1,3 (default: all)")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"))
    parser.add_argument("--px", type=int, default=512, help="side of a tile that is made up (default 512)")
    parser.add_argument("--data", type=Path, metavar="ROOT", help="a tile set with all splits; default: made up")
    return parser.parse_args()


if __name__ == "__main__":
    command.run(lambda: main(parse()), distributed.stop)
