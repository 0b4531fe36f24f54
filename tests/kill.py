"""Kill the project's commands at random moments, continue them, and compare the ends with those of runs never killed.

    python tests/kill.py [train] [pretrain] [build] [predict] [--times 20] [--seed 0]

A command is killed (SIGKILL, its workers too) and started again until it ends by itself, then begun anew, till it was
killed `times` times. The moments are drawn over the time from its first file to its end. After every kill each file
under a final name must be whole. Tensors must be equal bit for bit, tiles and maps byte for byte. Ends with 0 if so.
"""

import argparse
import csv
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from data.rasters import geotiff  # noqa: E402 - found by the line above
from runtime import checkpoint  # noqa: E402

TRAIN = ["model.width=4", "train.batch_size=8", "train.precision=off", "run.log_every=1", "train.eval_every=3"]
TRANSFORM = (1.0, 0.0, 500_000.0, 0.0, -1.0, 4_300_000.0)


def train(folder, place):
    """train_seg.py with an adversary and averaged weights -> the command that runs it in `place`."""
    words = [*TRAIN, "adversarial.width=4", "train.learning_rate=1e-3", "train.average=0.9", "train.epochs=12"]
    return ["train_seg.py", "configs/demo/agg_app.yaml", f"data.root={tile_set(folder)}", f"run.dir={place}", *words]


def pretrain(folder, place):
    words = [*TRAIN, "data.crop_px=64", "train.epochs=12"]
    return ["train_mae.py", "configs/demo/mae.yaml", f"data.root={tile_set(folder)}", f"run.dir={place}", *words]


def build(folder, place):
    """data.prepare of 24 scenes into 1,536 tiles, in two processes."""
    scenes, rows = folder / "scenes", ["scene,region,image,high,low"]
    for i in range(24) if not scenes.exists() else ():
        write_scene(scenes, f"s{i}", 512, i)
        rows.append(f"s{i},{'ab'[i % 2]},s{i}.tif,s{i}_high.tif,s{i}_low.tif")
        (scenes / "scenes.csv").write_text("\n".join(rows))
    options = ["--taxonomy", "configs/taxonomies/low2high.yaml", "--tile-px", 64, "--no-filter", "--workers", 2]
    return ["-m", "data.prepare", place / "set", "--scenes", scenes / "scenes.csv", *options]


def predict(folder, place):
    """predict.py of six scenes with a segmenter that saw a few steps."""
    scenes, run = folder / "to_map", folder / "mapper"
    if not scenes.exists():
        for i in range(6):
            write_scene(scenes, f"s{i}", 1200, i)
        words = [*TRAIN, "train.epochs=1", f"run.dir={run}"]
        finish(["train_seg.py", "configs/demo/agg.yaml", f"data.root={tile_set(folder)}", *words])
    images = [scenes / f"s{i}.tif" for i in range(6)]
    return ["predict.py", run, *images, "--out", place / "maps", "--window", 256, "--overlap", 64]


def tile_set(folder):
    if not (folder / "tiles").exists():
        finish(["-m", "data.synthetic", folder / "tiles", "--tiles", 32, "--tile-px", 64, "--workers", 1])
    return folder / "tiles"


def write_scene(folder, name, px, seed):
    """An image with both labels, of random blocks."""
    folder.mkdir(exist_ok=True)
    rng, cell = np.random.default_rng(seed), px // 16
    image = rng.integers(0, 256, (px // 4, px // 4, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    high = rng.choice(np.array([1, 2, 3, 5], np.uint8), (px // 8, px // 8)).repeat(8, 0).repeat(8, 1)
    low = rng.choice(np.array([11, 41, 81, 23], np.uint8), (cell, cell))
    geotiff.write(folder / f"{name}.tif", image, transform=TRANSFORM, epsg=32618)
    geotiff.write(folder / f"{name}_high.tif", high, transform=TRANSFORM, epsg=32618)
    on_cells = (px / cell, 0.0, TRANSFORM[2], 0.0, -px / cell, TRANSFORM[5])
    geotiff.write(folder / f"{name}_low.tif", low, transform=on_cells, epsg=32618)


def start(command):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, *map(str, command)], cwd=ROOT, env=environment, start_new_session=True,
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)  # fmt: skip


def finish(command, process=None):
    process = process or start(command)
    _, said = process.communicate()
    if process.returncode:
        sys.exit(f"{' '.join(map(str, command))} ended with {process.returncode}: {said}")


def files(place):
    return [path for path in place.rglob("*") if path.is_file() and not path.name.startswith(".")]


def require_whole(place):
    """Read every file that stands under a final name; -> how many there are. log.jsonl may end in half a line."""
    readers = {
        ".tif": geotiff.read,
        ".pt": checkpoint.load,
        ".json": lambda path: json.loads(path.read_text()),
        ".yaml": lambda path: dict(yaml.safe_load(path.read_text())),
        ".csv": lambda path: list(csv.DictReader(path.open(), strict=True)),
        ".png": lambda path: Image.open(path).load(),
        ".jsonl": Path.read_bytes,
    }
    for path in files(place):
        readers[path.suffix](path)
    return len(files(place))


def content(place):
    """{file: what must not depend on kills} of an ended command; no temporary file is left."""
    left = [path for path in place.rglob(".*.tmp")]
    assert not left, left
    return {path.relative_to(place).as_posix(): _content(path) for path in files(place) if ".build" not in path.parts}


def _content(path):
    if path.suffix == ".pt":
        state = checkpoint.load(path)
        state.get("config", {}).pop("run.dir", None)
        return _plain(state)
    if path.suffix == ".jsonl":
        return [_plain({k: v for k, v in json.loads(line).items() if k != "tiles_per_second"})
                for line in path.read_text().splitlines()]  # fmt: skip
    return None if path.name in ("config.yaml", "metrics.json") else path.read_bytes()  # they name the folder


def _plain(value):
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return (str(value.dtype), value.numpy().tobytes()) if hasattr(value, "numpy") else value


def kill(subject, folder, times, rng):
    """-> a line of figures; ends the program where something differs."""
    straight = folder / f"{subject.__name__}-straight"
    command, first = subject(folder, straight), None
    began, process = time.monotonic(), start(command)
    while process.poll() is None:
        if first is None and straight.exists() and any(straight.rglob("*")):
            first = time.monotonic() - began
        time.sleep(0.01)
    finish(command, process)
    whole_s, wanted = time.monotonic() - began, content(straight)
    kills, ends, seen, under_way = [], 0, 0, False
    while len(kills) < times or under_way:
        place = folder / f"{subject.__name__}-killed-{ends}"
        command, under_way = subject(folder, place), True
        moment = rng.uniform(first, whole_s) if len(kills) < times else None
        process = start(command)
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            kills.append(moment)
            seen += require_whole(place)
            continue
        finish(command, process)
        found = content(place)
        differing = [name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)]
        if differing:
            sys.exit(f"{subject.__name__}: differs after {len(kills)} kills: {', '.join(sorted(differing)[:5])}")
        ends, under_way = ends + 1, False
    return (
        f"{subject.__name__}: {len(kills)} kills between {min(kills):.1f} and {max(kills):.1f} s of {whole_s:.1f} s; "
        f"{ends} runs went on to their end, each with the {len(wanted)} files of the one never killed; "
        f"{seen} files looked at after kills, all whole"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    subjects = {subject.__name__: subject for subject in (train, pretrain, build, predict)}
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help="train, pretrain, build, predict (default: all)")
    parser.add_argument("--times", type=int, default=20, metavar="N", help="kills of each (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in given.subjects or subjects:
            rng = random.Random(f"{name}:{given.seed}")
            print(kill(subjects[name], Path(folder), given.times, rng), flush=True)


if __name__ == "__main__":
    main()
