"""Rows whose labels meet the shares of classes in a cell: what train_seg.py asks of supervision.aggregate=observation,
statistics and prior."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from beyond.observation import Observation
from beyond.region_losses import MISFITS, Matching, published, tabulate
from beyond.table import fit_codes, from_plain, table_to_yaml, to_plain
from data.cells import region_index, region_labels
from data.laying import same_scale
from models.regions import compositions
from runtime.command import warn
from runtime.errors import naming, require
from runtime.files import read_yaml
from runtime.labels import IGNORE


@dataclass(frozen=True)
class Observed:
    """table: an Observation in plain values, which checkpoints keep, else None; origin: where the model is from"""

    model: Observation | Matching
    origin: str
    table: dict | None = None

    def to(self, device):
        self.model.to(device)
        return self

    def judge(self, logits, batch):
        """-> the misfit's sum, in place of Eq. 1's; predictions (B, C, R) and labels (B, R) in merged classes."""
        labels = batch["labels"].long()
        composition = compositions(logits, batch["region_index"], labels.shape[1])
        return *self.model.judge(composition, labels), self.model.class_of[labels]

    def keep(self, run):
        """Say where the model is from, and write a table to the run's folder."""
        run.say(f"{run.dir}: {self.origin}")
        if self.table:
            run.write("observation.yaml", table_to_yaml(self.table))


def observe(config, tile_sets, open_exemplars, saved):
    """The Observed that a config asks for, else None: of a file, or of what exemplar places hold.

    tile_sets: of training and validation; open_exemplars: gives the Exemplars to count or fit in; saved: the checkpoint
    that a run goes on from, or None
    """
    how, given = config.supervision.aggregate, config.supervision.observation
    if how != "observation" and how not in MISFITS:
        return None
    description, native = tile_sets[0].description, config.supervision.codes == "native"
    names, n = list(description.taxonomy.names), description.scale
    table = saved and saved.get("observation")
    if how == "observation" and (table or given):
        where = Path(config.run.dir) / "last.pt" if table else given
        table = table or table_of_file(given, names, n)
        return Observed(from_plain(table, names, where), f"p(label | composition), as in {where}", table)
    if how in MISFITS:  # labels are rows of its table: native codes where all tiles have these
        native = native and all(row["low"] for tiles in tile_sets for row in tiles.rows)
    if given:
        require(native, f"{given}: is a table of native codes; it needs supervision.codes=native and native labels")
        model = Matching(how, published(given, names), description.taxonomy, native)
        return Observed(model, f"p(class | code), as in {given}")
    exemplars = open_exemplars()
    places = exemplars.tiles, exemplars.chosen, n
    shares, codes, native = exemplar_cells(*places, config.supervision.min_coverage, native)
    origin = f"{len(codes)} cells of {len(exemplars.chosen)} places"
    if how in MISFITS:
        model = Matching(how, tabulate(shares, codes), description.taxonomy, native)
        return Observed(model, f"p(class | code), counted in {origin}")
    model, cells, rare = fit_codes(shares, codes, exemplars.tiles.description.taxonomy.low, names, native)
    origin = f"p(label | composition) of {len(model.names)} labels, fitted to {origin}"
    if rare:
        listed = ", ".join(f"{code} ({count})" for code, count in rare.items())
        origin += f"; codes with too few cells, used as their merged class: {listed}"
    return Observed(model, origin, {"scale": n, **to_plain(model, names, cells)})


def table_of_file(path, names, n):
    """A given table in plain values, rounded, as a run that goes on finds it; a warning where it is of another n."""
    given = read_yaml(path)
    table = to_plain(from_plain(given, names, path), names)
    if (fitted_at := given.get("scale")) is None:
        return table
    with naming(path, "scale should be the n of the cells that it was fitted to: "):
        fitted_at = float(fitted_at)
    if not same_scale(fitted_at, n):
        warn(f"{path}: fitted at n = {fitted_at:g}, but here n = {n:g}; a code's meaning depends on n")
    return {"scale": fitted_at, **table}


def exemplar_cells(tiles, chosen, scale, min_coverage=1.0, native=True):
    """What fine labels say of the cells of exemplar places, beside their coarse labels; no image is read.

    Cells that do not supervise are left out, those with an unlabelled pixel, and those whose code the merge ignores.
    chosen:  indices of tiles; scale: that of the training set
    returns: shares (N, C) float64 of the classes; codes (N,) int64: native codes, else merged classes; whether they are
             native: so asked for, and no tile derives its cells
    raises:  Refused if the cells are of another size
    """
    taxonomy, theirs = tiles.description.taxonomy, tiles.description.scale
    classes = len(taxonomy.names)
    sizes = f"its cells are {theirs:g} px wide, those of the training set {scale:g}"
    require(same_scale(theirs, scale), f"{tiles.root}: {sizes}; a code's meaning depends on the size of its cell")
    native, codes = native and all(tiles.rows[i]["low"] for i in chosen), np.arange(classes)
    if native:
        codes = np.array(sorted(code for code, to in taxonomy.low.items() if to != IGNORE))
        places = {code: place for place, code in enumerate(codes.tolist())}
        tiles = tiles.relabelled(lambda low: ({code: places.get(code, IGNORE) for code in low}, range(classes)))
    found = []
    for i in sorted(chosen):
        high, cells = tiles.load_high(i), tiles.load_cells(i)
        labels, index = region_labels(cells, *high.shape, min_coverage), region_index(cells, *high.shape)
        inside = index >= 0
        counts = np.bincount(index[inside] * 256 + high[inside], minlength=labels.size * 256).reshape(-1, 256)
        kept = (labels != IGNORE) & (counts[:, IGNORE] == 0) & (counts.sum(axis=1) > 0)
        found.append((counts[kept, :classes], codes[labels[kept]]))
    counts, codes = (np.concatenate(parts) for parts in zip(*found, strict=True))
    require(len(codes), f"{tiles.root}: no cell of the exemplar places has a coarse label and a fine one at each pixel")
    return counts / counts.sum(axis=1, keepdims=True), codes, native
