"""What train_seg.py asks of a row that an observation model trains: labels, loss, scores and the model's table."""

from dataclasses import dataclass
from pathlib import Path

import torch

from beyond.observation import Observation, label_misfit_sum
from beyond.table import fit_codes, from_plain, from_yaml, to_plain, to_yaml
from models.regions import compositions


@dataclass(frozen=True)
class Observed:
    """model: what coarse labels say of their cells; table: the same in plain values; origin: where it is from."""

    model: Observation
    table: dict
    origin: str

    def to(self, device):
        self.model.to(device)
        return self

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


def observe(config, tile_sets, open_exemplars, saved):
    """The Observed of supervision.aggregate=observation, else None: the run's own, that of a file, or one fitted to
    exemplar places. The cells of `tile_sets` carry its labels from here on.

    open_exemplars: gives the places to fit to; saved: the checkpoint that a run goes on from, or None
    """
    if config.supervision.aggregate != "observation":
        return None
    taxonomy = tile_sets[0].description.taxonomy
    names, given = list(taxonomy.names), config.supervision.observation
    if saved is not None:
        table, origin = saved.get("observation"), "as in the checkpoint"
        model = from_plain(table, names, Path(config.run.dir) / "last.pt")
    elif given:
        model, origin = from_yaml(given, names), f"as in {given}"
        table = to_plain(model, names)
    else:
        native, exemplars = config.supervision.codes == "native", open_exemplars()
        shares, codes, native = exemplars.compositions(config.supervision.min_coverage, native)
        merged = exemplars.tiles.description.taxonomy.low
        model, cells, rare = fit_codes(shares, codes, merged, names, native)
        table, origin = to_plain(model, names, cells), f"fitted to {len(codes)} cells of {len(exemplars.chosen)} places"
        if rare:
            listed = ", ".join(f"{code} ({count})" for code, count in rare.items())
            origin += f"; of too few cells, and so no more than their merged class: {listed}"
    for tiles in tile_sets:
        tiles.read_low_as(*model.labels(tiles.description.taxonomy.low))
    return Observed(model, table, f"p(label | composition) of {len(model.names)} labels, {origin}")
