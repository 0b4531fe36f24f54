"""Losses of a cell's composition by p(class | code), beside the paper's sum: statistics matching and a prior.

m is the composition of a cell, the mean of its pixels' class probabilities, and k its code; eta_k and rho_k are the
mean and the standard deviation of the classes' shares over cells of a code. They are counted where fine and coarse maps
lie over each other (the split heldout), or they are a published table (configs/tables/nlcd_low2high.yaml).
"""

import torch
import torch.nn.functional as F
from torch import nn

from beyond.observation import class_table
from beyond.table import MIN_CELLS
from models.epitomes import load_table
from runtime.errors import naming
from runtime.files import read_yaml
from runtime.labels import IGNORE

RHO_FLOOR = 0.05  # a code whose cells are all alike is no infinite certainty [ours]
PRIOR_FLOOR = 1e-4  # added to each class's probability (Rolf, Malkin et al.)


def statistics_misfit(composition, labels, eta, rho):
    """Statistics matching (Malkin et al., ICLR 2019; Robinson et al., CVPR 2019), summed over cells.

    Over the N cells of code k in a tile: N times the sum over classes of (mean of m - eta_k)² / (2 rho_k²).
    [differs: they add the variance of pixels' draws, which n² pixels make small]

    composition: (B, C, R); labels: (B, R) rows of the table, 255 is left out; eta, rho: (K, C)
    """
    members = one_hot(labels, eta)
    cells = members.sum(dim=1)  # (B, K)
    means = torch.einsum("brk,bcr->bkc", members, composition) / cells.clamp(min=1)[..., None]
    misfit = (means - eta).square() / (2 * (rho.square() + RHO_FLOOR**2))
    return (cells[..., None] * misfit).sum()


def prior_misfit(composition, labels, eta, rho=None):
    """QR, the implicit posterior under a prior (Rolf, Malkin et al., UAI 2022), summed over cells.

    With the prior eta_k and q the pixels' probabilities: sum over classes of mean(q) log mean(q) - mean(q log eta_k),
    means over a micro-batch. [differs: their prior is blurred over 31 px round a cell; here it is the cell's own, so
    that q comes in by m]

    composition, labels, eta: as in `statistics_misfit`
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


class Matching(nn.Module):
    """One of these losses over the rows of its table, which are native codes, or classes where labels are these.

    how: one of MISFITS; table: {code or class: (eta, rho)}; what it lacks has its merged class for certain, as for LSR
    """

    def __init__(self, how, table, taxonomy, native):
        super().__init__()
        certain = torch.eye(len(taxonomy.names))
        merged = taxonomy.low if native else {c: c for c in range(len(certain))}
        merged = {code: to for code, to in merged.items() if to != IGNORE}
        eta, rho = zip(*(table.get(code, (certain[to], 0 * certain[to])) for code, to in merged.items()), strict=True)
        self.misfit, self.native = MISFITS[how], native
        self.rows = {code: k for k, code in enumerate(merged)}
        self.register_buffer("eta", torch.stack(eta))
        self.register_buffer("rho", torch.stack(rho))
        self.register_buffer("class_of", class_table(merged.values()))

    def judge(self, composition, labels):
        """-> the misfit's sum, and scores of classes, as beyond.observation.Observation.judge."""
        return self.misfit(composition, labels, self.eta, self.rho), composition

    def labels(self, merged):
        """{native code: class or 255} -> {native code: row or 255}, and of each class, for cells that derive from fine
        labels."""
        by_code = {code: self.rows.get(code if self.native else to, IGNORE) for code, to in merged.items()}
        return by_code, range(self.eta.shape[1])


def tabulate(shares, codes):
    """{code: (eta, rho)} from the shares (N, C) of cells with these codes (N,), of codes with MIN_CELLS or more."""
    shares, codes = torch.as_tensor(shares).float(), torch.as_tensor(codes)
    cells = {code: shares[codes == code] for code in codes.unique().tolist()}
    return {k: (own.mean(dim=0), own.std(dim=0, correction=0)) for k, own in cells.items() if len(own) >= MIN_CELLS}


def published(path, names):
    """The same from a file as configs/tables/nlcd_low2high.yaml, of which a row of zeros says nothing; where it gives
    no deviation, the largest that shares of this mean can have."""
    eta = {code: torch.tensor(row) for code, row in load_table(path, names).items() if any(row)}
    with naming(path, f"deviations should be rows `code: [{len(names)} numbers]`: "):
        rows = read_yaml(path).get("deviations") or {}
        rho = {code: torch.tensor(row).view(len(names)) for code, row in rows.items()}
    return {code: (mean, rho.get(code, (mean * (1 - mean)).sqrt())) for code, mean in eta.items()}
