"""A run's folder: where the run goes on, when it records, validates and saves, and what it keeps. Bookkeeping alone."""

import json
import math
import time
from pathlib import Path

import torch
from tqdm import tqdm

from runtime import checkpoint, command
from runtime.errors import DiskFull, naming, reason, require
from runtime.files import write_text
from runtime.settings import check_resumable, check_same_data, flatten, to_yaml
from runtime.signals import Stopped, StopRequest


def lay_like_weights(optimizer):
    """Lay an optimizer's loaded moments in memory as their weights lie, which another machine may lay otherwise: fused
    Adam would take one weight's moments for another's."""
    for weight, state in optimizer.state.items():
        for key, moment in state.items():
            if moment.shape == weight.shape:
                state[key] = torch.empty_like(weight).copy_(moment)


class Run:
    """One training run.

    saved:  what its last.pt holds, until `begin` has taken it up; None where there is none
    done:   steps that are done; steps: of the whole run, from `begin` on
    best:   {"step": int, NAME: the value that selects}, from `begin` on, as the script keeps it
    record: the means of the last record
    evaluate_now, save_now, stop_now: what is due after the step that ended; stop_now is the signal that asks, or 0
    """

    def __init__(self, config, ranks):
        self.config, self.ranks, self.dir = config, ranks, Path(config.run.dir)
        last = self.dir / "last.pt"
        self.saved = checkpoint.load(last) if last.exists() else None
        self.done, self.validations, self.record, self.sums, self.counted = 0, 0, None, {}, 0

    def begin(self, parts, about, items, best):
        """Load the parts from last.pt, where there is one; then open the folder, its log cut back to that step.

        parts: {name: object with a state_dict}, as in last.pt; about: what every checkpoint also holds; its "data"
               must agree with that of last.pt; None in either is left out
        items: tiles or images per epoch
        best:  the initial best
        raises: Refused if last.pt belongs to another run
        """
        config = self.config
        self.parts = {name: part for name, part in parts.items() if part is not None}
        self.about = {"config": flatten(config), **{key: value for key, value in about.items() if value is not None}}
        self.best = best
        epoch_steps = max(1, math.ceil(items / config.train.batch_size))
        self.steps = config.train.epochs * epoch_steps
        self.eval_every = config.train.eval_every or epoch_steps
        if self.saved is not None:
            with naming(self.dir / "last.pt", "is not a checkpoint of this run: "):
                check_resumable(self.saved["config"], config, self.dir)
                check_same_data(self.saved["data"], about["data"], config.data.root, self.dir)
                for name, part in self.parts.items():
                    part.load_state_dict(self.saved[name])
                    if isinstance(part, torch.optim.Optimizer):
                        lay_like_weights(part)
                self.done, self.best = self.saved["step"], self.saved["best"]
        self.saved = None
        apart = f"{self.dir}: the processes see different last.pt files; run.dir must be shared by all nodes"
        require(self.ranks.largest(self.done) == -self.ranks.largest(-self.done), apart)
        if self.ranks.first:
            self._open()

    def _open(self):
        self.path, kept = self.dir / "log.jsonl", []
        write_text(self.dir / "config.yaml", to_yaml(self.config))
        if self.path.exists() and self.done:
            lines = self.path.read_text().splitlines(keepends=True)  # a kill may have cut the last one short
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= self.done]
        write_text(self.path, "".join(kept))
        (self.dir / "metrics.json").unlink(missing_ok=True)  # written last: a run that has it is complete

    def each_step(self, unit="tiles"):
        """The steps to do, counted from 0. From the first one on, SIGTERM and Ctrl-C wait for a step's end."""
        self.stop, self.unit = StopRequest(), unit
        hidden = None if self.ranks.first else True  # None: where stderr is no terminal
        self.progress = tqdm(total=self.steps, initial=self.done, unit="step", disable=hidden)
        self.recorded = self.started = time.perf_counter()
        self.before = self.done
        yield from range(self.done, self.steps)
        self.progress.close()

    def introduce(self, data, network, precision):
        """The run in one line."""
        onward = f"; resuming from step {self.done}" if self.done else ""
        world = f"{self.ranks.device.type}, precision {precision}, {self.ranks.world} process(es){onward}"
        self.say(f"{self.dir}: {data}, {self.steps} steps of {self.config.train.batch_size}; {network}; {world}")

    def logs(self, step):
        """Whether this step ends with a record, asked before it begins."""
        return (step + 1) % self.config.run.log_every == 0

    def add(self, **shares):
        """Add one micro-batch's share of the step's values, which are sums over micro-batches and ranks. The sums stay
        on the device until `end_step` reads them for a record: the loop's only wait for it."""
        for name, share in shares.items():
            self.sums[name] = self.sums.get(name, 0) + share.detach()

    def end_step(self, step, networks, **values):
        """Say what is due after a step, the same on every rank; record it every log_every steps and before a save.

        networks: whose weights must be finite to be saved
        values:   of the record, beside the means since the last one
        raises:   Refused if a mean or a weight is not finite
        """
        self.done, self.counted = step + 1, self.counted + 1
        self.progress.update()
        self.stop_now = self.ranks.largest(self.stop.number)  # that any rank noted: all leave at the same step
        self.evaluate_now = self.done % self.eval_every == 0 or self.done == self.steps
        self.save_now = self.evaluate_now or self.stop_now > 0
        if self.logs(step) or self.save_now:
            first, self.record = self.record is None, self._means()
            checkpoint.require_finite(self.record, networks if self.save_now else (), self.dir, self.done)
            self.log({"step": self.done, "kind": "train", **values, **self.record})
            if first and not self.save_now:  # the first validation may be far
                self._tell(f"a validation every {self.eval_every} steps")

    def _means(self):
        totals = self.ranks.sum(torch.stack(list(self.sums.values()))).tolist()
        means = {name: total / self.counted for name, total in zip(self.sums, totals, strict=True)}
        pace = self.counted * self.config.train.batch_size / (time.perf_counter() - self.recorded)
        self.sums, self.counted, self.recorded = {}, 0, time.perf_counter()
        return {**means, "tiles_per_second": round(pace, 2)}

    def validated(self, result, text):
        """Write a validation's result to the log, and the text with the last record to the terminal."""
        self.log({"step": self.done, "kind": "validation", **result})
        self._tell(text + " (best so far)" * (self.best["step"] == self.done))
        self.validations += 1

    def _tell(self, text):
        """One line on where the run stands, and how long the rest takes by the pace of the steps up to here."""
        minutes = (time.perf_counter() - self.started) / 60 * (self.steps - self.done) / (self.done - self.before)
        left = f", about {minutes:.0f} min left" if self.done < self.steps else ""
        loss, pace = self.record["loss"], self.record["tiles_per_second"]
        self.say(f"step {self.done}/{self.steps}  loss {loss:.4f}  {text}  {pace:.1f} {self.unit}/s{left}")

    def save(self, name, parts):
        if self.ranks.first:
            state = {"step": self.done, "best": self.best, **{key: part.state_dict() for key, part in parts.items()}}
            checkpoint.save(self.dir / name, {**self.about, **state})

    def save_last(self):
        """Save last.pt, from which a run goes on; leave if a signal asked for it. raises: Stopped"""
        self.save("last.pt", self.parts)
        self.ranks.barrier()
        self.recorded = time.perf_counter()  # what was done since the last record, as a validation, is not of the rate
        if self.stop_now and self.done < self.steps:
            self.progress.close()
            raise Stopped(self.dir, self.done, self.steps, self.stop_now)

    def complete(self, **facts):
        """Write metrics.json, which says that the run is complete."""
        summary = {"name": self.config.run.name or self.dir.name, **facts, "steps": self.steps, "best": self.best}
        self.write("metrics.json", json.dumps(summary, indent=1))
        self.say(f"{self.dir}: complete; best.pt is that of step {self.best['step']}")

    def write(self, name, text):
        """Another file of the folder."""
        if self.ranks.first:
            write_text(self.dir / name, text)

    def draw(self, drawing):
        """figures/curves.png by `drawing(log, path)`. A run does not stop for a picture that cannot be made."""
        if self.ranks.first:
            path = self.dir / "figures" / "curves.png"
            try:
                drawing(self.path, path)
            except Exception as error:
                self.say(f"note: {path}: not drawn: {reason(error)}")

    def log(self, record):
        """record: {"step": int, "kind": str, name: value, ...} -> one line of log.jsonl."""
        if self.ranks.first:
            with naming(self.path, kind=DiskFull), open(self.path, "a") as file:
                file.write(json.dumps(record) + "\n")

    def say(self, text):
        """One line on the terminal, above a progress bar where there is one."""
        if self.ranks.first:
            command.say(text)
