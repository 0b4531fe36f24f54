"""Rows that no training script makes: Oracle and Self-Epitomic label super-resolution (Table 1), and Linear [ours]."""

import numpy as np
import torch
from tqdm import tqdm

from data import tile_io
from data.cells import upsampled, without_holes
from data.laying import tile_grid
from data.loading import scoring_batches, to_device
from data.samples import ScoringTiles
from data.tiles import TileSet, low_cells, read_label
from data.transforms import normalize
from metrics import Tally
from models.epitomes import NO_CODE, add_counts, load_table, super_resolve
from models.linear import Linear, Moments, feature_maps, mean_features, settle
from models.pretrained import load_resnet18, resnet18_file
from models.resnet import ResNet18
from runtime.command import warn
from runtime.errors import Refused
from runtime.labels import IGNORE
from trained import Trained


def oracle(tiles):
    """The upsampled low-resolution ground truth as the prediction (Sec. 5, Baseline Methods) -> Tally."""
    tally = Tally(tiles.description.taxonomy.names)
    for i in tqdm(range(len(tiles)), desc="Oracle", disable=None, leave=False):
        tile = tiles.load(i)
        predicted = upsampled(without_holes(tile.cells), *tile.high.shape)
        tally.add(torch.from_numpy(predicted)[None], torch.from_numpy(tile.high)[None])
    return tally


def linear(root, regions, what, device):
    """Linear, fitted to the coarse labels of the split train -> Trained. what: of `open_encoder`"""
    tiles = TileSet(root, "train", regions, needs=("low",))
    description, samples = tiles.described(), ScoringTiles(tiles, "low_regions")
    features = Features(open_encoder(what, description.bands), samples, description, device)
    moments = features.moments(samples)
    if not moments.targets.any():
        raise Refused(f"{root}: no labelled coarse cell lies entirely in a training tile, so Linear has none to fit")
    network = Linear(features.encoder, *moments.solve()).to(device).eval()
    return Trained("Linear", description.facts(), network, features.mean, features.std)


class Features:
    """What Linear reads of stored pixels: the bands, and the stages of an encoder, if any, that has seen `samples`."""

    def __init__(self, encoder, samples, description, device):
        self.mean, self.std = (torch.tensor(v, device=device) for v in (description.band_mean, description.band_std))
        self.encoder, self.device, self.num_classes = encoder and encoder.to(device), device, len(description.classes())
        if encoder:
            settle(encoder, (self.normalized(batch) for batch in batches(samples, 8, device)))

    def normalized(self, batch):
        return normalize(batch["image"], self.mean, self.std)

    @torch.no_grad()
    def maps(self, batch):
        return feature_maps(self.encoder, self.normalized(batch))

    def moments(self, samples):
        """samples: with the keys region_index and labels -> Moments of all their regions."""
        total = Moments(self.num_classes)
        for batch in tqdm(batches(samples, 1, self.device), total=len(samples), disable=None, leave=False):
            labels = batch["labels"]
            total.add(mean_features(self.maps(batch), batch["region_index"], labels.shape[1]), labels)
        return total


def batches(samples, size, device):
    """All samples on the device, `size` at a time."""
    return (to_device(batch, device) for batch in scoring_batches(samples, size, 0, 1, workers=0))


def open_encoder(what, bands, width=16):
    """what: none; the seed of a random ResNet-18 of `width`; or a file of weights, as train_mae.py's resnet18.pt

    returns: ResNet18, or None
    """
    if what == "none":
        return None
    others = "name a resnet18.pt, the seed of a random encoder, as 0, or none"
    seed, state = (int(what), {}) if what.isdecimal() else (0, resnet18_file(what, what, others))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = ResNet18(bands, len(state.get("conv1.weight", range(width))))
    if state:
        told = load_resnet18(encoder, state, what)
        if state.keys() - {"fc.weight", "fc.bias"} != encoder.state_dict().keys():
            warn(told)
    return encoder


def lsr(tiles, table, patches, seed, device):
    """Self-Epitomic label super-resolution (ref. 20), tile by tile, from image and low-resolution codes -> Tally."""
    description = tiles.description
    # Few sensors fill all 16 bits: such images are scaled by their band statistics [paper silent; ours].
    brightest = max(m + 3 * s for m, s in zip(description.band_mean, description.band_std, strict=True))
    brightest = 255 if description.dtype == "uint8" else brightest
    tally = Tally(description.taxonomy.names)
    for i in tqdm(range(len(tiles)), desc="Self-Epitomic LSR", disable=None, leave=False):
        tile = tiles.load(i, low=False)
        image = torch.from_numpy(tile.image.astype(np.float32) / brightest).clamp(0, 1).permute(2, 0, 1).to(device)
        codes = torch.from_numpy(low_codes(tiles, i)).to(device)
        try:
            labels, _ = super_resolve(image, codes, table, patches=patches, seed=seed)
        except Refused as error:
            raise Refused(f"{tiles.rows[i]['tile']}: {error}") from None
        tally.add(labels.cpu()[None], torch.from_numpy(tile.high)[None])
    return tally


def lsr_table(tiles, regions, path):
    """p(l | code): read from a file, or counted on the split heldout of the same regions.

    A code that heldout lacks has its merged class for certain [paper silent; ours].
    """
    taxonomy = tiles.description.taxonomy
    classes = len(taxonomy.names)
    if path:
        return load_table(path, taxonomy.names)
    heldout = TileSet(tiles.root, "heldout", regions, needs=("high", "low"))
    native = {bool(row["low"]) for row in (*tiles.rows, *heldout.rows)}
    if len(native) > 1:  # native codes, and classes where low is derived from high: numbers that must not meet
        raise Refused(f"{tiles.root}: some tiles have a low label and some none; --lsr needs all or none")
    counts = {}
    for i in range(len(heldout)):
        high, codes = torch.from_numpy(heldout.load_high(i)), torch.from_numpy(low_codes(heldout, i))
        add_counts(counts, high.long(), codes, classes)
    merged = taxonomy.low if native == {True} else {c: c for c in range(classes)}
    certain = {code: [float(c == to) for c in range(classes)] for code, to in merged.items()}
    return {**certain, **{code: (row.double() / row.sum()).tolist() for code, row in counts.items()}}


def low_codes(tiles, i):
    """Tile i's low-resolution codes over each pixel, (H, W) int64: native where the set has a low label, merged classes
    where it is derived from the high one; NO_CODE for 255, unless the merge gives it a class."""
    row, description = tiles.rows[i], tiles.description
    size = (description.tile_px,) * 2
    has_class = bool(row["low"]) and description.taxonomy.low.get(255, IGNORE) != IGNORE
    if not row["low"]:
        codes = upsampled(tiles.load_cells(i), *size).astype(np.int64)
    else:
        low, image = read_label(tiles.root / row["low"]), tile_io.read(tiles.root / row["image"], pixels=False)
        codes = low.pixels[..., 0].astype(np.int64)
        if tile_grid(image, low, description.scale) is not None:
            codes = upsampled(low_cells(codes, low, image, description), *size)
    return codes if has_class else np.where(codes == 255, NO_CODE, codes)
