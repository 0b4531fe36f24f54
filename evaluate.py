"""Score checkpoints and baselines on the high-resolution labels of a split (Sec. 5).

    python evaluate.py runs/low runs/agg runs/high --oracle --linear --data tiles --out scores.json --figure scores.png
    python evaluate.py runs/obs_app --coarse                 use the coarse label of each tile too
    python evaluate.py --scene map.tif truth.tif --taxonomy configs/taxonomies/low2high.yaml     [rasterio]

The table gives percent: accuracy, F1 and IoU of each class, and their means; border is the F1 of class borders within
2 px. A run's folder means its best.pt. The last.pt beside it is scored too, but only written to the JSON.
"""

import json
from pathlib import Path

import torch
from tqdm import tqdm

from beyond.informed import load_informed
from data.laying import same_gsd, same_scale
from data.loading import scoring_batches, to_device
from data.samples import ScoringTiles
from data.taxonomy import load_taxonomy
from data.tiles import TileSet
from maps.agreement import scene_tally
from metrics import SCORES, Tally
from reports.baselines import linear, lsr, lsr_table, oracle
from reports.figures import chosen_tiles, draw_figure6
from runtime import checkpoint, command, distributed
from runtime.errors import Refused, require
from runtime.files import write_text
from trained import checkpoint_path, load_trained, told_apart


def main(arguments):
    if arguments.scene:
        return main_scene(*arguments.scene, arguments)
    ranks = distributed.start(arguments.device, mps=not arguments.coarse)
    needs = ("high", "low") if arguments.oracle or arguments.lsr or arguments.coarse else ("high",)
    tiles = TileSet(arguments.data, arguments.split, arguments.regions, needs=needs)
    rows = [{"name": "Oracle", **report(oracle(tiles))}] if arguments.oracle else []
    if arguments.lsr:
        p_class = lsr_table(tiles, arguments.regions, arguments.lsr_table)
        tally = lsr(tiles, p_class, arguments.lsr_patches, arguments.lsr_seed, ranks.device)
        rows.append({"name": "Self-Epitomic LSR", **report(tally)})
    if arguments.linear:
        closed_form = linear(arguments.data, arguments.regions, arguments.linear_encoder, ranks.device)
        rows.append({"name": closed_form.name, **score(closed_form, tiles, ranks)})
    files = [checkpoint_path(path) for path in arguments.checkpoints]
    methods = told_apart([load_for(tiles, best, ranks.device, arguments.coarse) for best in files], files)
    for best, segmenter in zip(files, methods, strict=True):
        name = segmenter.name + (", coarse label at test" if arguments.coarse else "")
        row = {"name": name, **score(segmenter, tiles, ranks, arguments.coarse), "checkpoint": str(best)}
        last = best.with_name("last.pt")
        if best.name == "best.pt" and last.exists():
            last = load_for(tiles, last, ranks.device, arguments.coarse)
            row["last"] = score(last, tiles, ranks, arguments.coarse)
        rows.append(row)
    result = {"data": str(arguments.data), "split": arguments.split, "rows": rows}
    if not ranks.first:
        return result
    for best in files:
        if (best.parent / "log.jsonl").exists() and not (best.parent / "metrics.json").exists():
            print(f"note: {best.parent} is not complete: this is what it has learned so far")
    print(f"{arguments.data}, split {arguments.split}: {len(tiles)} tiles; percent")
    publish(result, arguments.out)
    if arguments.figure:
        chosen = chosen_tiles(tiles, arguments.tiles)
        draw_figure6(arguments.figure, methods, tiles, ranks.device, chosen, arguments.coarse)
    return result


def main_scene(predicted, truth, arguments):
    """One label raster against another: class indices of predict.py against codes that the taxonomy merges."""
    taxonomy = load_taxonomy(arguments.taxonomy)
    tally = scene_tally(predicted, truth, taxonomy, arguments.same_crs)
    row = {"name": Path(predicted).stem, **report(tally), "predicted": str(predicted)}
    result = {"data": str(truth), "split": None, "rows": [row]}
    publish(result, arguments.out)
    return result


def load_for(tiles, path, device, coarse=False):
    """-> Trained.

    raises: Refused if its bands, pixels or classes are not those of the tile set, or it is to make use of coarse labels
            and cannot
    """
    trained, description = (load_informed if coarse else load_trained)(path, device), tiles.description
    its, theirs = map(pixels_of, (trained.facts, description.facts()))
    require(its == theirs, f"{path}: was trained on {its}, the tile set has {theirs}")
    names = [c["name"] for c in trained.facts["classes"]]
    if names != list(description.taxonomy.names):
        raise Refused(f"{path}: knows the classes {names}, the tile set {list(description.taxonomy.names)}")
    theirs, ours = trained.facts.get("image_gsd"), description.image_gsd
    if not same_gsd(theirs, ours):
        command.warn(f"{path}: trained on pixels of {theirs:g} m, but here they have {ours:g} m")
    n, here = trained.facts["scale"], description.scale
    if coarse and not same_scale(here, n):
        command.warn(f"{path}: trained at n = {n:g}, but here n = {here:g}; a code's meaning depends on n")
    return trained


def pixels_of(facts):
    """What the images of a run or of a tile set are made of, in words."""
    made = " made of values {:g} to {:g}".format(*facts["range"]) if facts.get("range") else ""
    return f"{facts['bands']} bands of {facts['dtype']}{made}"


@torch.no_grad()
def score(segmenter, tiles, ranks, coarse=False):
    """Scores of one network: one tally of every pixel with a high label, summed over ranks.

    coarse: let it use the coarse label of each tile too (beyond/informed.py)
    """
    tiles, cell_px = tiles.relabelled(segmenter.observation.labels) if coarse else tiles, tiles.description.scale**2
    tally = Tally(tiles.description.taxonomy.names, ranks.device)
    size = 1 if coarse else 4  # cells differ in number from tile to tile
    batches = scoring_batches(ScoringTiles(tiles, "high", coarse=coarse), size, ranks.rank, ranks.world, workers=0)
    total = -(-len(tiles) // (size * ranks.world))
    for batch in tqdm(batches, total=total, desc=segmenter.name, disable=None, leave=False):
        batch = to_device(batch, ranks.device)
        logits = segmenter(batch["image"])
        if coarse:
            void = batch["void"] if batch["void"].any() else None
            logits = segmenter.informed(logits, batch["coarse"], cell_px, void)
        tally.add(logits.argmax(dim=1), batch["labels"])
    tally.sum_over(ranks)
    return report(tally)


def report(tally):
    """What the JSON says of a row: its scores, and the counts that they came from."""
    require(tally.counts["confusion"].any(), "no pixel of this split has a fine label: there is nothing to score")
    return {**tally.scores(), **{name: counts.tolist() for name, counts in tally.counts.items()}}


def publish(result, out):
    """Print the table, and write the JSON where it was asked for."""
    print(table(result["rows"]))
    if out:
        write_text(out, json.dumps(result, indent=1))


def table(rows):
    """Scores in percent: those of metrics.SCORES, then F1 and IoU of each class."""
    width = max([6, *(len(row["name"]) for row in rows)])
    names = "".join(f"{name[:11] + ' F1/IoU':>20}" for name in rows[0]["per_class"])
    wide = {key: max(8, len(title) + 2) for key, (title, *_) in SCORES.items()}
    lines = [f"{'':<{width}}" + "".join(f"{SCORES[key][0]:>{wide[key]}}" for key in SCORES) + names]
    for row in rows:
        line = f"{row['name']:<{width}}" + "".join(f"{100 * row[k]:{wide[k]}.2f}" for k in SCORES)
        for entry in row["per_class"].values():
            both = "absent" if entry["f1"] is None else f"{100 * entry['f1']:.2f} /{100 * entry['iou']:6.2f}"
            line += f"{both:>20}"
        lines.append(line)
    return "\n".join(lines)


def parse(argv=None):
    parser = command.parser(__doc__)
    parser.add_argument("checkpoints", nargs="*", metavar="CHECKPOINT", help="best.pt, last.pt or a run's folder")
    parser.add_argument("--data", metavar="ROOT", help="tile set; default: the first checkpoint's own")
    parser.add_argument("--split", default="test", help="train, validation, heldout, test or all (default: test)")
    parser.add_argument("--regions", type=lambda s: tuple(s.split(",")), default=(), metavar="A,B")
    parser.add_argument("--oracle", action="store_true", help="score the upsampled low-resolution label too")
    parser.add_argument("--coarse", action="store_true", help="let checkpoints use each tile's coarse label [ours]")
    parser.add_argument("--lsr", action="store_true", help="score Self-Epitomic label super-resolution too")
    parser.add_argument("--lsr-patches", type=int, default=20_000, metavar="N", help="per tile (default: 20000)")
    parser.add_argument("--lsr-seed", type=int, default=0, metavar="N", help="random seed (default: 0)")
    parser.add_argument("--lsr-table", metavar="YAML", help="p(l | code), like configs/tables/nlcd_low2high.yaml")
    parser.add_argument("--linear", action="store_true", help="score ridge regression from the train split too [ours]")
    parser.add_argument("--linear-encoder", default="0", metavar="WHAT", help="features of --linear besides the bands: "
        "of a resnet18.pt, of a random encoder by its seed (default: 0), or none")
    parser.add_argument("--scene", nargs=2, metavar=("PREDICTED", "TRUTH"), help="score a map of predict.py")
    parser.add_argument("--same-crs", action="store_true", help="with --scene: take both as one coordinate system")
    parser.add_argument("--taxonomy", metavar="YAML", help="TRUTH's taxonomy, like configs/taxonomies/low2high.yaml")
    parser.add_argument("--out", type=Path, metavar="JSON", help="write the scores here")
    parser.add_argument("--figure", type=Path, metavar="PNG", help="write a contact sheet like Fig. 6 here")
    words = {"type": lambda s: tuple(s.split(",")), "metavar": "NAME,..."}
    parser.add_argument("--tiles", **words, help="draw these tiles of the split; default: some that show many classes")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"), help="(default: auto)")
    arguments = parser.parse_args(argv)
    if bool(arguments.scene) != bool(arguments.taxonomy):
        parser.error("--scene PREDICTED TRUTH and --taxonomy YAML go together")
    if arguments.scene:
        return arguments
    if not (arguments.checkpoints or arguments.oracle or arguments.lsr or arguments.linear):
        parser.error("nothing to score: name a CHECKPOINT, --oracle, --lsr, --linear or --scene")
    if arguments.coarse and not arguments.checkpoints:
        parser.error("--coarse needs a CHECKPOINT: name one or more")
    command.require_options(vars(arguments), lsr_patches=1)
    if arguments.data is None and arguments.checkpoints:
        config = checkpoint.load(checkpoint_path(arguments.checkpoints[0])).get("config", {})
        arguments.data = config.get("data.root")
    if not arguments.data:
        parser.error("--data ROOT is needed")
    return arguments


if __name__ == "__main__":
    command.run(lambda: main(parse()), distributed.stop)
