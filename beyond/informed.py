"""A trained segmenter that makes use of the coarse label at test, for --coarse of evaluate.py and predict.py."""

from dataclasses import dataclass

from beyond.observation import Observation
from beyond.posterior import posterior
from beyond.table import from_plain
from data.taxonomy import taxonomy_from_dict
from runtime import checkpoint
from runtime.errors import require
from trained import Trained, load_trained


@dataclass(frozen=True)
class Informed(Trained):
    """observation: what coarse labels say of their cells."""

    observation: Observation

    def informed(self, logits, coarse, cell_px, void=None):
        """The logits in the light of the coarse labels over them.

        coarse: {"labels", "to_cell"} as data.samples.stack_cells has it; cell_px, void: of beyond.posterior
        """
        return posterior(self.observation, logits, coarse["labels"], coarse["to_cell"], cell_px, void)

    def coarse_labels(self):
        """{native code: label of the observation model, or IGNORE} of the coarse source that it was trained with."""
        return self.observation.labels(taxonomy_from_dict(self.facts, self.name).low)[0]


def load_informed(path, device):
    """`load_trained` of a run that was trained by an observation model. raises: Refused for any other"""
    trained, table = load_trained(path, device), checkpoint.load(path).get("observation")
    mend = "train with supervision.aggregate=observation"
    require(table is not None, f"{path}: has no model of coarse labels, so it cannot use --coarse; {mend}")
    model = from_plain(table, [c["name"] for c in trained.facts["classes"]], path).to(device)
    return Informed(**vars(trained), observation=model)
