"""Runs of train_seg.py and train_mae.py, most of them in this process: their tile sets, and what they leave."""

import csv
import json
from pathlib import Path

import torch
from commands import ROOT, on_two_ranks, run_script

import train_mae
import train_seg
from config import PretrainConfig, SegmenterConfig
from runtime.settings import load_config

SMALL = ["model.width=8", "train.batch_size=16", "train.learning_rate=1e-3", "train.precision=off", "run.log_every=2"]
SMALL += ["train.eval_every=0", "run.device=cpu"]  # where runs are equal bit for bit


def settings(tile_set, run_dir, *more):
    """The words of a small run of Agg."""
    return ["configs/demo/agg.yaml", f"data.root={tile_set}", f"run.dir={run_dir}", *SMALL, *more]


def trained(path, *overrides):
    """The script that a config is for, in this process -> last.pt."""
    script, kind = (train_mae, PretrainConfig) if Path(path).stem == "mae" else (train_seg, SegmenterConfig)
    config = load_config(kind, ROOT / path, overrides)
    script.main(config)
    return saved(Path(config.run.dir))


def relisted(tile_set, root, change):
    """A tile set of the same files, whose tiles.csv has the rows that `change` makes of these."""
    root.mkdir(parents=True)
    for path in tile_set.iterdir():
        if path.name != "tiles.csv":
            (root / path.name).symlink_to(path)
    with open(tile_set / "tiles.csv", newline="") as old, open(root / "tiles.csv", "w", newline="") as new:
        rows = list(csv.DictReader(old))
        writer = csv.DictWriter(new, list(rows[0]))
        writer.writeheader()
        writer.writerows(change(rows))
    return root


def saved(run_dir):
    return torch.load(run_dir / "last.pt", weights_only=True)


def by_one_and_two_processes(folder, config, *overrides):
    """last.pt of a run in one process, and of the same in two of micro-batches of 5."""
    for start, processes, micro_batch in ((run_script, 1, 0), (on_two_ranks, 2, 5)):
        words = config, *overrides, f"run.dir={folder / str(processes)}", f"train.micro_batch={micro_batch}"
        start("-m", "tests.two_processes", *words)
    return saved(folder / "1"), saved(folder / "2")


def records(run_dir):
    path = run_dir / "log.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def losses(run_dir):
    return [record["loss"] for record in records(run_dir) if record["kind"] == "train"]


def assert_same(a, b, where, tolerance):
    if isinstance(a, list):
        a, b = dict(enumerate(a)), dict(enumerate(b))
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}", tolerance)
    elif isinstance(a, torch.Tensor) and tolerance:
        assert (a.double() - b.double()).abs().max() <= tolerance, where
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b, where
