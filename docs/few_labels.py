"""Tile sets with few labelled tiles, for a label curve: what is pretraining worth where labels are few?

    python docs/few_labels.py ROOT OUT --tiles 5 --seed 0
    python train_seg.py configs/demo/agg_app.yaml data.root=OUT run.dir=runs/few/agg_app-5 train.epochs=752 \
        train.eval_every=188
    python docs/few_labels.py --table runs/few/*.json

The first line writes OUT, ROOT with a random few of its training tiles and all tiles of its other splits. Files are
hard links, so OUT takes no room. Band statistics stay those of ROOT, for they need no labels. --table reads scores of
evaluate.py from files that end in -TILES-SEED.json, two rows in each, and prints the differences paired by seed.
"""

import argparse
import csv
import json
import os
import random
import shutil
import statistics
import sys
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from reports.tables import interval  # noqa: E402


def few(root, out, tiles, seed):
    shutil.copytree(root, out, copy_function=os.link)
    with open(root / "tiles.csv", newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    kept = {row["tile"] for row in random.Random(seed).sample([r for r in rows if r["split"] == "train"], tiles)}
    (out / "tiles.csv").unlink()  # a link to that of ROOT
    with open(out / "tiles.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, reader.fieldnames)
        writer.writeheader()
        writer.writerows(row for row in rows if row["split"] != "train" or row["tile"] in kept)


def table(paths):
    scores = defaultdict(list)
    for path in sorted(paths):
        rows = json.loads(path.read_text())["rows"]
        scores[int(path.stem.split("-")[-2])].append([(100 * row["miou"], 100 * row["border_f1"]) for row in rows])
    for tiles, seeds in sorted(scores.items()):
        for i, what in enumerate(("mIoU", "border")):
            first, second = ([seed[row][i] for seed in seeds] for row in (0, 1))
            gain, half = interval([b - a for a, b in zip(first, second, strict=True)])
            said = f"{statistics.mean(first):5.1f} -> {statistics.mean(second):5.1f}"
            print(f"{tiles:5} tiles, {len(seeds)} seeds, {what:6} {said}: {gain:+.1f} +- {half:.1f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, nargs="?")
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--tiles", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--table", type=Path, nargs="+", metavar="JSON")
    given = parser.parse_args()
    if given.table:
        table(given.table)
    else:
        few(given.root, given.out, given.tiles, given.seed)


if __name__ == "__main__":
    main()
