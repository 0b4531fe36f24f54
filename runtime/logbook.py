"""Records to log.jsonl and the terminal: one JSON object a line, numbers only where numbers were measured."""

import json
import time
from pathlib import Path

import torch
from tqdm import tqdm

from runtime.files import remove_leftovers, write_text
from runtime.settings import to_yaml


class Logbook:
    """Open a run's folder, with its config.yaml, and append records to its log.jsonl. On resume the log is cut back to
    the records up to `step`, and what a broken-off save left behind is deleted.

    enabled: False on all ranks but the first, which alone writes and prints
    """

    def __init__(self, run_dir, config, step=0, enabled=True):
        self.enabled = enabled
        self.path = Path(run_dir) / "log.jsonl"
        if not enabled:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(run_dir)
        write_text(self.path.parent / "config.yaml", to_yaml(config))
        kept = []
        if self.path.exists() and step > 0:
            kept = [line for line in self.path.read_text().splitlines() if _step_of(line) <= step]
        write_text(self.path, "".join(line + "\n" for line in kept))
        (self.path.parent / "metrics.json").unlink(missing_ok=True)  # written last: a run that has it is complete
        self.started, self.first_step, self.expected = time.perf_counter(), step, False

    def write(self, record):
        """record: {"step": int, "kind": str, name: value, ...} -> one line of log.jsonl."""
        if self.enabled:
            try:
                with open(self.path, "a") as file:
                    file.write(json.dumps(record) + "\n")
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(self.path)) from None  # a failed write names no file

    def say(self, text):
        """One line on the terminal, above a progress bar where there is one."""
        if self.enabled:
            tqdm.write(text)

    def expect(self, step, steps, epoch_steps):
        """Once, after this process's first evaluation: say how long the rest of the run takes at its pace so far."""
        if self.enabled and not self.expected and step < steps:
            pace = (time.perf_counter() - self.started) / (step - self.first_step)
            rest, epochs = pace * (steps - step), (steps - step) / epoch_steps
            spent = f"{rest / 3600:.1f} h" if rest > 5400 else f"{rest / 60:.0f} min" if rest > 90 else f"{rest:.0f} s"
            self.say(f"about {spent} for the remaining {epochs:.3g} epochs")
            self.expected = True


class Recent:
    """Means over the steps since the last record, kept on the device: `read` is the loop's only wait for it."""

    def __init__(self, ranks):
        self.ranks, self.sums = ranks, {}
        self.restart_clock()
        self.steps = 0

    def add(self, **shares):
        """Add one micro-batch's share of the step's values, which are sums over micro-batches and ranks."""
        for name, share in shares.items():
            self.sums[name] = self.sums.get(name, 0) + share.detach()

    def end_step(self):
        self.steps += 1

    def restart_clock(self):
        """Leave what was done since the last record, as a validation, out of the rate."""
        self.started = time.perf_counter()

    def read(self, batch_size):
        """-> {name: mean over the steps since the last call, ..., "tiles_per_second"}, the same on every rank."""
        totals = self.ranks.sum(torch.stack(list(self.sums.values()))).tolist()
        record = {name: total / self.steps for name, total in zip(self.sums, totals, strict=True)}
        record["tiles_per_second"] = round(self.steps * batch_size / (time.perf_counter() - self.started), 2)
        self.sums, self.steps = {}, 0
        self.restart_clock()
        return record


def _step_of(line):
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return float("inf")  # a line that a kill cut short
