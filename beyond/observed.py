"""What train_seg.py asks of a row that an observation model trains: labels, loss, scores and the model's table."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from beyond.observation import Observation, label_misfit_sum
from beyond.table import fit_codes, from_plain, from_yaml, to_plain, to_yaml
from data.cells import region_index, region_labels
from models.regions import compositions
from runtime.errors import Refused
from runtime.labels import IGNORE


@dataclass(frozen=True)
class Observed:
    """model: what coarse labels say of their cells; table: the same in plain values; origin: where it is from."""

    model: Observation
    table: dict
    origin: str

    def to(self, device):
        self.model.to(device)
        return self

    def relabelled(self, tiles):
        """The same tiles, their cells carrying the labels of the model."""
        return tiles.relabelled(*self.model.labels(tiles.description.taxonomy.low))

    def misfit_sum(self, logits, batch):
        """Eq. 1's sum, where region i costs -log p(label_i | its composition)."""
        return label_misfit_sum(self.predictions(logits, batch), batch["labels"])

    def predictions(self, logits, batch):
        """Log-probabilities of rows and classes, (B, K + C, R)."""
        return self.model(compositions(logits, batch["region_index"], batch["labels"].shape[1]))

    def judge(self, logits, batch):
        """What validation counts: predictions (B, C, R) and labels (B, R) in merged classes, and [misfit, labels].

        A region is predicted as the class whose codes are together the most probable, and labels count as their merged
        class.
        """
        log_probs, labels = self.predictions(logits, batch), batch["labels"]
        misfit = label_misfit_sum(log_probs, labels)
        lost = torch.stack([misfit, misfit.new_tensor(batch["count"])])
        return log_probs[:, -self.model.num_classes :], self.model.classes_of(labels), lost

    def keep(self, run):
        """Say where the model is from, and write it to the run's folder."""
        run.say(f"{run.dir / 'observation.yaml'}: {self.origin}")
        run.write("observation.yaml", to_yaml(self.table))


def observe(config, description, open_exemplars, saved):
    """The Observed of supervision.aggregate=observation, else None: the run's own, that of a file, or one fitted to
    exemplar places.

    description: of the training set; open_exemplars: gives the places to fit to; saved: the checkpoint that a run goes
    on from, or None
    """
    if config.supervision.aggregate != "observation":
        return None
    names, given = list(description.taxonomy.names), config.supervision.observation
    if saved is not None:
        table, origin = saved.get("observation"), "as in the checkpoint"
        model = from_plain(table, names, Path(config.run.dir) / "last.pt")
    elif given:
        model, origin = from_yaml(given, names), f"as in {given}"
        table = to_plain(model, names)
    else:
        native, exemplars = config.supervision.codes == "native", open_exemplars()
        places = exemplars.tiles, exemplars.chosen, description.scale
        shares, codes, native = exemplar_cells(*places, config.supervision.min_coverage, native)
        merged = exemplars.tiles.description.taxonomy.low
        model, cells, rare = fit_codes(shares, codes, merged, names, native)
        table, origin = to_plain(model, names, cells), f"fitted to {len(codes)} cells of {len(exemplars.chosen)} places"
        if rare:
            listed = ", ".join(f"{code} ({count})" for code, count in rare.items())
            origin += f"; of too few cells, and so no more than their merged class: {listed}"
    return Observed(model, table, f"p(label | composition) of {len(model.names)} labels, {origin}")


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
    if abs(theirs / scale - 1) > 0.01:
        raise Refused(
            f"{tiles.root}: its cells are {theirs:g} px wide, those of the training set {scale:g}; what a code says of "
            "its cell holds for one size"
        )
    native, codes = native and all(tiles.rows[i]["low"] for i in chosen), np.arange(classes)
    if native:
        codes = np.array(sorted(code for code, to in taxonomy.low.items() if to != IGNORE))
        places = {code: place for place, code in enumerate(codes.tolist())}
        tiles = tiles.relabelled({code: places.get(code, IGNORE) for code in taxonomy.low}, range(classes))
    found = []
    for i in sorted(chosen):
        high, cells = tiles.load_high(i), tiles.load_cells(i)
        labels, index = region_labels(cells, *high.shape, min_coverage), region_index(cells, *high.shape)
        inside = index >= 0
        counts = np.bincount(index[inside] * 256 + high[inside], minlength=labels.size * 256).reshape(-1, 256)
        kept = (labels != IGNORE) & (counts[:, IGNORE] == 0) & (counts.sum(axis=1) > 0)
        found.append((counts[kept, :classes], codes[labels[kept]]))
    counts, codes = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return counts / counts.sum(axis=1, keepdims=True), codes, native
