"""What an encoder knows: test mIoU of ridge regression of fine labels on its features, stage by stage [ours].

    python -m tools.probe runs/naip215/mae/resnet18.pt --data runs/naip215/r0              # two CPU cores, 2 minutes
    python -m tools.probe resnet18.pt --data tiles --tiles 2                               # where fine labels are few

Each encoder is compared with random encoders of its width on the same pixels: mean and standard deviation over seeds. A
U-Net reads all five stages, so an encoder is a useful start if a stage, or all of them, beats the random ones.
"""

import json
import statistics
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset
from tqdm import tqdm

from data.samples import ScoringTiles, collate
from data.tiles import TileSet
from data.transforms import draw
from metrics import confusion_matrix, miou
from models.linear import classify
from reports.baselines import Features, batches, open_encoder
from runtime import command, distributed
from runtime.errors import Refused
from runtime.files import write_text
from runtime.labels import IGNORE

FEATURES = "bands", "stem", "layer1", "layer2", "layer3", "layer4", "all"


class LabelledPixels(Dataset):
    """Some labelled pixels of each tile, as regions of one pixel: the same for every encoder."""

    collate = staticmethod(collate)

    def __init__(self, tiles, chosen, pixels):
        self.tiles, self.chosen, self.pixels = tiles, chosen, pixels

    def __len__(self):
        return len(self.chosen)

    def __getitem__(self, i):
        tile = self.tiles.load(int(self.chosen[i]), low=False)
        places = np.flatnonzero(tile.high != IGNORE)
        places = draw(0, 1, self.chosen[i]).permutation(places)[: self.pixels]
        index = np.full(tile.high.shape, -1, np.int32)
        index.flat[places] = np.arange(len(places))
        return {"image": tile.image.transpose(2, 0, 1), "region_index": index, "labels": tile.high.flat[places]}


def main(arguments):
    device = distributed.start(arguments.device).device
    training, test = (TileSet(arguments.data, split, needs=("high",)) for split in ("train", "test"))
    # Nested: the first two tiles are among the first ten.
    chosen = draw(0, 0, 0).permutation(len(training))[: arguments.tiles or None]
    labelled = LabelledPixels(training, chosen, arguments.pixels)
    print(f"{arguments.data}: fine labels of {len(chosen)} tiles; mIoU on {len(test)} tiles of test, percent")
    print(f"{'':<24}" + "".join(f"{name:>8}" for name in FEATURES))
    encoders = {path: open_encoder(path, training.description.bands) for path in arguments.encoders}
    if "none" in encoders:
        raise Refused("none: the bands alone are a column of every encoder; name a resnet18.pt or a seed, as 0")
    rows = {name: show(name, [probe(encoder, training, labelled, test, device)]) for name, encoder in encoders.items()}
    widths = {encoder.conv1.out_channels for encoder in encoders.values()}
    for width in sorted(widths) if arguments.random else ():
        drawn = (open_encoder(str(seed), training.description.bands, width) for seed in range(arguments.random))
        scores = [probe(encoder, training, labelled, test, device) for encoder in drawn]
        rows[f"random, width {width}"] = show(f"random, width {width}", scores)
    if arguments.out:
        write_text(arguments.out, json.dumps({"data": str(arguments.data), "rows": rows}, indent=1))
    return rows


def probe(encoder, training, labelled, test, device):
    """-> {one of FEATURES: test mIoU}, by the labels of `labelled`; batch norm sees all images of `training`."""
    features = Features(encoder, ScoringTiles(training, "high"), training.description, device)
    moments = features.moments(labelled)
    widths = [training.description.bands, *encoder.channels]
    ends = np.cumsum([0, *widths]).tolist()
    spans = {name: (k, k + 1) for k, name in enumerate(FEATURES[:-1])} | {"all": (0, len(widths))}
    solved = {name: moments.solve(ends[first], ends[last]) for name, (first, last) in spans.items()}
    solved = {name: [part.float().to(device) for part in parts] for name, parts in solved.items()}
    counts = dict.fromkeys(FEATURES, 0)
    for batch in tqdm(batches(ScoringTiles(test, "high"), 1, device), total=len(test), disable=None, leave=False):
        maps, truth = features.maps(batch), batch["labels"]
        for name, (first, last) in spans.items():
            predicted = classify(maps[first:last], *solved[name], truth.shape[1:]).argmax(dim=1)
            counts[name] = counts[name] + confusion_matrix(predicted, truth, features.num_classes)
    return {name: miou(counts[name]) for name in FEATURES}


def show(name, scores):
    """Print the mean of each score, and below it the deviation over several seeds -> {"mean", "deviation"}."""
    name = name if len(name) <= 24 else "..." + name[-21:]
    mean = {key: statistics.mean(of[key] for of in scores) for key in FEATURES}
    print(f"{name:<24}" + "".join(f"{100 * value:>8.2f}" for value in mean.values()))
    if len(scores) < 2:
        return {"mean": mean}
    deviation = {key: statistics.stdev(of[key] for of in scores) for key in FEATURES}
    print(f"{f'  +- of {len(scores)} seeds':<24}" + "".join(f"{100 * value:>8.2f}" for value in deviation.values()))
    return {"mean": mean, "deviation": deviation}


def parse(argv=None):
    parser = command.parser(__doc__, "python -m tools.probe")
    what = "a resnet18.pt, or the seed of a random one of width 16"
    parser.add_argument("encoders", nargs="+", metavar="ENCODER", help=what)
    parser.add_argument("--data", required=True, metavar="ROOT", help="tile set with fine labels")
    parser.add_argument("--tiles", type=int, metavar="N", help="training tiles with fine labels to use (default: all)")
    parser.add_argument("--pixels", type=int, default=300, metavar="N", help="labelled pixels per tile (default: 300)")
    parser.add_argument("--random", type=int, default=5, metavar="N", help="random encoders to compare (default: 5)")
    parser.add_argument("--out", type=Path, metavar="JSON", help="write the scores here")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"), help="(default: auto)")
    arguments = parser.parse_args(argv)
    command.require_options(vars(arguments), tiles=1, pixels=1, random=0)
    return arguments


if __name__ == "__main__":
    command.run(lambda: main(parse()), distributed.stop)
