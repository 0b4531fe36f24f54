"""Losses of a cell's composition by p(class | code), beside the paper's sum: statistics matching and a prior.

m is the composition of a cell, the mean of its pixels' class probabilities, and k its code. For each code, eta_k and
rho_k are the mean and the standard deviation of the classes' shares over cells of that code. They are counted where
fine and coarse maps lie over each other (the split heldout), which the paper's rows do not look at, or they are a
published table (configs/tables/nlcd_low2high.yaml). Unlike p(code | composition) of beyond/observation.py, they change
where class shares change between places.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from beyond.table import MIN_CELLS
from models.epitomes import load_table
from models.regions import compositions
from runtime.files import read_yaml
from runtime.labels import IGNORE

RHO_FLOOR = 0.05  # a code whose cells are all alike is no infinite certainty [ours]
PRIOR_FLOOR = 1e-4  # added to each class's probability (Rolf, Malkin et al.)


def statistics_misfit(composition, labels, eta, rho):
    """Statistics matching (Malkin et al., ICLR 2019; Robinson et al., CVPR 2019), summed over cells.

    Over the N cells of code k in a tile, mean composition and eta_k are to agree within rho_k:
    N times the sum over classes of (mean - eta_k)² / (2 rho_k²). One cell may differ from its code's mean.
    [differs: their denominator adds the variance of the pixels' draws, which n² pixels make small; without it, the
    logarithm that goes with it is constant]

    composition: (B, C, R); labels: (B, R) rows of the table, 255 is left out; eta, rho: (K, C)
    """
    members = one_hot(labels, eta)
    cells = members.sum(dim=1)  # (B, K)
    means = torch.einsum("brk,bcr->bkc", members, composition) / cells.clamp(min=1)[..., None]
    misfit = (means - eta).square() / (2 * (rho.square() + RHO_FLOOR**2))
    return (cells[..., None] * misfit).sum()


def prior_misfit(composition, labels, eta, rho=None):
    """QR, the implicit posterior under a prior (Rolf, Malkin et al., UAI 2022), summed over cells.

    With the prior P_k = eta_k and q the pixels' probabilities: the sum over classes of mean(q) log mean(q), less the
    mean of q log P. The first keeps the classes apart, for it lets pixels be sure as long as all together are not.
    [differs: their prior is blurred over 31 px round each cell; here it is the cell's own, so that q comes in by m]

    composition, labels, eta: as in `statistics_misfit`; the mean is over the cells of a micro-batch
    """
    prior = (eta + PRIOR_FLOOR) / (eta + PRIOR_FLOOR).sum(dim=1, keepdim=True)
    members = one_hot(labels, eta)
    cells = members.sum()
    mean = torch.einsum("brk,bcr->c", members, composition) / cells.clamp(min=1)
    cross = torch.einsum("brk,bcr,kc->", members, composition, prior.log())
    return cells * (mean * mean.clamp(min=1e-12).log()).sum() - cross


MISFITS = {"statistics": statistics_misfit, "prior": prior_misfit}


def one_hot(labels, rows):
    """(B, R) labels -> (B, R, rows) of the table's type; zeros for 255."""
    known = labels != IGNORE
    return F.one_hot(labels.long().where(known, 0), len(rows)).to(rows) * known[..., None]


@dataclass
class Matched:
    """What train_seg.py asks of such a row, as beyond.observed.Observed has it.

    Labels are rows of the table: native codes, then whole classes, which codes without a row of their own stand for.
    names: of the rows; classes: what each is merged to; eta, rho: (rows, C); how: statistics or prior
    """

    how: str
    names: list
    classes: list
    eta: torch.Tensor
    rho: torch.Tensor
    origin: str
    table = None  # checkpoints keep none: at test the coarse label is not used

    def to(self, device):
        self.eta, self.rho = self.eta.to(device), self.rho.to(device)
        return self

    def misfit_sum(self, logits, batch):
        return self.judge(logits, batch)[2][0]

    def judge(self, logits, batch):
        """Compositions (B, C, R) and labels (B, R) in merged classes, and [misfit, labels]; "likelihood" is its exp."""
        labels = batch["labels"]
        composition = compositions(logits, batch["region_index"], labels.shape[1])
        misfit = MISFITS[self.how](composition, labels, self.eta, self.rho)
        merged = torch.tensor([*self.classes, *[IGNORE] * (256 - len(self.classes))], device=labels.device)
        return composition, merged[labels.long()], torch.stack([misfit, misfit.new_tensor(batch["count"])])

    def labels(self, merged):
        """{native code: class or 255} -> {native code: label}, and the label of each class."""
        first = len(self.names) - self.eta.shape[1]  # of the classes' own rows
        rows = {name: k for k, name in enumerate(self.names)}
        by_code = {code: to if to == IGNORE else rows.get(code, first + to) for code, to in merged.items()}
        return by_code, list(range(first, len(self.names)))

    def keep(self, run):
        run.say(self.origin)


def match(config, tile_sets, open_exemplars):
    """The Matched of supervision.aggregate=statistics or prior: by a file, else counted on exemplar places. The cells
    of `tile_sets` carry its labels from here on."""
    taxonomy, given = tile_sets[0].description.taxonomy, config.supervision.observation
    names = list(taxonomy.names)
    if given:
        table, origin = published(given, names, taxonomy.low), f"as in {given}"
    else:
        exemplars = open_exemplars()
        found = exemplars.compositions(config.supervision.min_coverage, config.supervision.codes == "native")
        table = counted(*found, exemplars.tiles.description.taxonomy.low, names)
        origin = f"counted in {len(found[0])} cells of {len(exemplars.chosen)} places"
    # A code without a row stands for its class, and that for all of the cell, unless classes are what was counted.
    certain = {name: (c, torch.eye(len(names))[c], torch.zeros(len(names))) for c, name in enumerate(names)}
    rows = {name: row for name, row in table.items() if name not in certain} | certain | table
    classes, eta, rho = zip(*rows.values(), strict=True)
    origin = f"p(class | code) of {len(rows) - len(names)} codes and {len(names)} classes, {origin}"
    matched = Matched(config.supervision.aggregate, [*rows], [*classes], torch.stack(eta), torch.stack(rho), origin)
    for tiles in tile_sets:
        tiles.read_low_as(*matched.labels(tiles.description.taxonomy.low))
    return matched


def counted(shares, codes, native, merged, names):
    """{code, or class name where codes are not native: (class, eta, rho)} from the shares (N, C) of cells with these
    codes (N,); rows of fewer than MIN_CELLS cells are left out."""
    shares, codes = torch.as_tensor(shares).float(), torch.as_tensor(codes)
    rows = [(code, code, to) for code, to in merged.items()] if native else [(n, c, c) for c, n in enumerate(names)]
    cells = {name: (to, shares[codes == code]) for name, code, to in rows if to != IGNORE}
    return {name: (to, own.mean(dim=0), own.std(dim=0, correction=0))
            for name, (to, own) in cells.items() if len(own) >= MIN_CELLS}  # fmt: skip


def published(path, names, merged):
    """The same from a file as configs/tables/nlcd_low2high.yaml, of its codes that the merge keeps."""
    deviations = read_yaml(path).get("deviations") or {}
    table = {}
    for code, row in load_table(path, names).items():
        if merged.get(code, IGNORE) != IGNORE:
            eta = torch.tensor(row)
            # Where no deviation is given, the largest that shares of this mean can have.
            rho = torch.tensor(deviations[code]) if code in deviations else (eta * (1 - eta)).sqrt()
            table[code] = merged[code], eta, rho
    return table
