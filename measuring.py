"""How a figure of bench.py is taken, by turns and from the shipped programs, and how the table of all is written."""

import importlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from data.tiles import TileSet
from runtime.files import write_text
from runtime.settings import require

COLUMNS = "stage", "what", "ours", "peer", "ratio", "limit", "unit", "peer's name"


@dataclass
class Bench:
    """What all stages share. rows: the table; skipped: what is not in it; needed: tiles/s of stage 1."""

    device: torch.device
    repeats: int
    px: int
    compile: bool
    data: Path | None
    folder: Path
    rows: list
    skipped: list
    naip215: Path | None = None
    needed: float | None = None

    @property
    def on_cpu(self):
        return self.device.type == "cpu"

    def row(self, stage, what, ours, peer, unit, peer_name, limit=None):
        row = {"stage": stage, "what": what, "ours": ours, "peer": peer}
        row.update(ratio=ours / peer if ours and peer else None, limit=limit, unit=unit, peer_name=peer_name)
        self.rows.append(row)
        print_row(*row.values())

    def peer(self, stage, name):
        """The module of an extra; None, and a line below the table, where it is not installed."""
        try:
            return importlib.import_module(name)
        except ImportError as error:
            self.skipped.append(f"stage {stage}: the peer {name} is not installed ({error}); pip install {name}")
            return None

    def rates(self, count, *calls, repeats=None):
        """`count` a call -> how many a second each call does, by turns; None for a call that is None."""
        spent = [[] for _ in calls]
        for turn in range((repeats or self.repeats) + 1):
            for call, times in zip(calls, spent, strict=True):
                if call:
                    self.wait()
                    started = time.perf_counter()
                    call()
                    self.wait()
                    times += [time.perf_counter() - started] if turn else []
        return [count / statistics.median(times) if times else None for times in spent]

    def wait(self):
        if not self.on_cpu:
            getattr(torch, self.device.type).synchronize()


def shipped(bench, root, batch, rows, world=1, threads=None, turns=2, **environment):
    """train_seg.py with the config of each row, of configs/low2high where no folder is said, by turns: tiles/s, the
    median of its records."""
    rates = {row: [] for row in rows}
    steps, every = (8, 1) if bench.on_cpu else (40, 5)  # on a GPU a record waits for what is under way
    environment = {"OMP_NUM_THREADS": str(threads or torch.get_num_threads()), **environment}
    epoch_steps = -(-len(TileSet(root, "train")) // batch)
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={world}"] if world > 1 else []
    words = [f"data.root={root}", f"run.device={bench.device.type}", f"run.log_every={every}",
             "train.eval_every=1000000", f"train.batch_size={batch}",
             f"train.epochs={-(-steps // epoch_steps)}"]  # fmt: skip
    for _ in range(turns):
        for row, found in rates.items():
            folder = Path(tempfile.mkdtemp(dir=bench.folder))
            config = f"configs/{row if '/' in row else f'low2high/{row}'}.yaml"
            run_command(*launcher, "train_seg.py", config, *words, f"run.dir={folder}", **environment)
            found += tiles_per_second(folder)
            shutil.rmtree(folder)
    return [statistics.median(found) for found in rates.values()]


def tiles_per_second(run):
    """Of a run's records but the first, whose step warms up."""
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [r["tiles_per_second"] for r in records[1:] if r["kind"] == "train"]


def run_command(*words, **environment):
    words, here = [sys.executable, *map(str, words)], Path(__file__).resolve().parent
    done = subprocess.run(words, cwd=here, env={**os.environ, **environment}, capture_output=True, text=True)
    require(not done.returncode, f"{' '.join(words[1:3])} failed: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    return done.stdout


@contextmanager
def busy_processes(count):
    """So many processes beside, which do nothing and want a core each."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def text(cell):
    if cell is None or isinstance(cell, str):
        return cell or ""
    return f"{cell:.3g}" if cell < 100 else f"{cell:,.0f}"


def print_row(*cells):
    stage, what, ours, peer, ratio, limit, unit, name = map(text, cells)
    print(f"{stage:>5}  {what:<38} {ours:>8} {peer:>8} {ratio:>6} {limit:>8}  {unit:<23} {name}".rstrip(), flush=True)


def write_report(path, facts, bench):
    """The table as JSON, and as Markdown beside it."""
    write_text(path, json.dumps({**facts, "rows": bench.rows, "skipped": bench.skipped}, indent=1))
    lines = [", ".join(f"{key} {value}" for key, value in facts.items()), "", f"| {' | '.join(COLUMNS)} |"]
    lines.append("|" + " --- |" * len(COLUMNS))
    lines += [f"| {' | '.join(map(text, row.values()))} |" for row in bench.rows]
    lines += ["", *(f"- skipped: {line}" for line in bench.skipped)]
    write_text(path.with_suffix(".md"), "\n".join(lines).rstrip() + "\n")
