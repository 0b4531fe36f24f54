"""The runs behind the rows of the paper's tables: what each is, where it stands, training what is not complete, scores.

Everywhere here `arguments` are those of reproduce.py.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from config import PretrainConfig, SegmenterConfig
from data.manifest import SPLITS, read_description, read_manifest
from metrics import SCORES
from runtime.children import ROOT, command, side_by_side
from runtime.errors import Refused, require
from runtime.settings import check_resumable, flatten, load_config

CONFIGS = {
    "Low": "low.yaml",
    "Agg, literal sums": "agg_literal.yaml",
    "Agg": "agg.yaml",
    "Agg+App": "agg_app.yaml",
    "Ours": "ours.yaml",
    "High": "high.yaml",
}
BEYOND = {"Obs": "obs.yaml", "Obs+App": "obs_app.yaml", "Obs+App+Pre": "obs_app_pre.yaml"}  # the paper has none of them
PRETRAINED = "Ours", "Obs+App+Pre"
# Overrides that pretraining takes too, and those that it alone knows.
PRETRAIN_ONLY = set(flatten(PretrainConfig())) - set(flatten(SegmenterConfig()))
PRETRAIN_SETTINGS = PRETRAIN_ONLY | {"model.width", "train.epochs", "train.precision", "data.workers", "run.device"}


@dataclass(frozen=True)
class PlannedRun:
    """One training run: a script, its config, its folder, and the settings that differ from the config."""

    script: str
    config: Path
    dir: Path
    overrides: tuple
    after: "PlannedRun | None" = None  # the pretraining that it starts from

    def state(self):
        """complete, resumes or new. raises: Refused where the folder holds another experiment"""
        if not (self.dir / "last.pt").exists():
            return "new"
        kind = PretrainConfig if self.script == "train_mae.py" else SegmenterConfig
        asked = load_config(kind, ROOT / self.config, self.overrides)
        kept = load_config(kind, self.dir / "config.yaml")
        check_resumable(flatten(kept), asked, self.dir)
        if self.after:
            lacks = f"{self.dir}: the run that it started from, {self.after.dir}, has no last.pt"
            mend = f"bring it back, or delete {self.dir} to train both anew"
            require((self.after.dir / "last.pt").exists(), f"{lacks}; {mend}")
        same = kept.data.root == asked.data.root and kept.train.epochs == asked.train.epochs
        return "complete" if same and is_of(asked.data.root, self.dir / "metrics.json") else "resumes"


def is_of(root, path):
    """Whether a file was written for a tile set as it now stands."""
    return path.exists() and path.stat().st_mtime >= (ROOT / root / "dataset.yaml").stat().st_mtime


def folder(arguments, root):
    """Where the runs on a tile set stand: below --out, one folder a set where there are several."""
    return arguments.out if len(arguments.data or ()) < 2 else arguments.out / root.name


def rows_with_configs(arguments):
    """The rows of Tables 1 and 2: the literal sums are one where --configs has a config of them."""
    literal = (ROOT / arguments.configs / CONFIGS["Agg, literal sums"]).exists()
    return [name for name in CONFIGS if literal or name != "Agg, literal sums"]


def row_runs(arguments, name, root, seed):
    """The runs behind a row, its segmenter last."""
    out, config = folder(arguments, root), {**CONFIGS, **BEYOND}[name]
    run_dir = out / f"{Path(config).stem}-{seed}"
    if name not in PRETRAINED:
        return [segmenter_run(arguments, config, root, run_dir, seed)]
    before = pretraining_run(arguments, "mae.yaml", arguments.auxiliary or root, out / f"mae-{seed}", seed)
    return [before, segmenter_run(arguments, config, root, run_dir, seed, start=before)]


def start_runs(arguments, root, seed, left_out):
    """Runs of Table 3 -> {pretrained on what: [its runs, the segmenter last]}.

    left_out: regions to keep from these runs. Where only the test split has such regions, there is nothing to keep from
              them: then Agg+App and Ours of Table 2 are two of these rows.
    """
    out, limits = folder(arguments, root), [f"data.exclude_regions=[{','.join(left_out)}]"]
    starts = {"none": None}
    starts["own"] = pretraining_run(arguments, "mae_ches.yaml", root, out / f"mae-own-{seed}", seed, *limits)
    if arguments.auxiliary:
        mae = out / f"mae-auxiliary-{seed}"
        starts["auxiliary"] = pretraining_run(arguments, "mae_usa.yaml", arguments.auxiliary, mae, seed)
    runs = {}
    for source, start in starts.items():
        words = limits if start else [*limits, "model.init=none"]
        segmenter = segmenter_run(arguments, "ours.yaml", root, out / f"{source}-{seed}", seed, *words, start=start)
        runs[source] = [start, segmenter] if start else [segmenter]
    if not left_out:
        runs["none"] = row_runs(arguments, "Agg+App", root, seed)
        runs["auxiliary" if arguments.auxiliary else "own"] = row_runs(arguments, "Ours", root, seed)
    return runs


def table3_tests(arguments, root):
    """-> {tested on what: words of evaluate.py}, and the regions that training must leave out by name: none where only
    the test split has them."""
    regions = {split: set() for split in SPLITS}
    for row in read_manifest(ROOT / root)[1]:
        regions[row["split"]].add(row["region"])
    left_out = set(arguments.leave_out or regions["test"])
    # Where a set's whole test split is left out, what is tested at home is its validation tiles.
    places = {
        "own": ("test" if arguments.leave_out else "validation", sorted(set.union(*regions.values()) - left_out)),
        "left out": (arguments.left_out_split, sorted(left_out)),
    }
    require(places["own"][1], f"{root}: each region has test tiles; give --leave-out the regions for testing only")
    for split, chosen in places.values():
        if split != "all" and not regions.get(split, set()) & set(chosen):
            raise Refused(f"{root} has no tile of the split {split} in {', '.join(chosen)}; --left-out-split all?")
    tests = {name: ("--data", root, "--regions", ",".join(r), "--split", split) for name, (split, r) in places.items()}
    if arguments.other:
        tests["other"] = ("--data", arguments.other, "--split", "all")  # as Sec. 3.2
    seen = set.union(*(regions[split] for split in SPLITS if split != "test"))
    return tests, sorted(left_out) if left_out & seen else []


def exemplar_runs(arguments, root, seed):
    """Runs of Fig. 5, each in a list: Low, then Agg+App with each number of exemplars; with all, it is Table 2's."""
    out, runs = folder(arguments, root), [row_runs(arguments, "Low", root, seed)]
    for k in arguments.exemplars:
        more = (f"adversarial.exemplars={k}", f"run.name=K={k}") if k else ()
        run_dir = out / (f"agg_app-K{k}-{seed}" if k else f"agg_app-{seed}")
        runs.append([segmenter_run(arguments, "agg_app.yaml", root, run_dir, seed, *more)])
    return runs


def pretraining_run(arguments, config, root, run_dir, seed, *more):
    config = config_file(arguments, config)
    more = [*more, *(word for word in arguments.overrides if word.split("=")[0] in PRETRAIN_SETTINGS)]
    crop_px = load_config(PretrainConfig, ROOT / config, more).data.crop_px
    if (ROOT / root / "dataset.yaml").exists():  # small tiles take smaller crops
        crop_px = min(crop_px, read_description(ROOT / root).tile_px // 32 * 32)
    words = f"data.root={root}", f"run.dir={run_dir}", f"run.seed={seed}", *more, f"data.crop_px={crop_px}"
    return PlannedRun("train_mae.py", config, run_dir, words)


def segmenter_run(arguments, config, root, run_dir, seed, *more, start=None):
    """start: the pretraining run that it starts from, in place of what its config says"""
    more = [*more, *(word for word in arguments.overrides if word.split("=")[0] not in PRETRAIN_ONLY)]
    init = [f"model.init={start.dir / 'resnet18.pt'}"] if start else []
    words = f"data.root={root}", f"run.dir={run_dir}", f"run.seed={seed}", *init, *more
    return PlannedRun("train_seg.py", config_file(arguments, config), run_dir, words, start)


def config_file(arguments, name):
    """A config of --configs; where a folder does not tell auxiliary and own pretraining apart, mae.yaml is both."""
    others = {"mae_ches.yaml": "mae.yaml", "mae_usa.yaml": "mae.yaml", "mae.yaml": "mae_usa.yaml"}
    for candidate in (name, others.get(name, name)):
        if (ROOT / arguments.configs / candidate).exists():
            return arguments.configs / candidate
    raise Refused(f"{arguments.configs}: has no {name}; --configs configs/demo has one of each")


def train(arguments, runs):
    """Say what is complete and what is to be trained, then train it, --jobs at a time. The demo tells rows that need no
    training at once, and each other as soon as it is trained; tables look at test tiles last."""
    states = {run: run.state() for run in runs}
    waiting = [run for run, state in states.items() if state != "complete"]
    print(f"{len(waiting)} of {len(states)} runs to train; each soon prints how long it will take")
    print("\n".join(f"  {state:<9} {run.dir}" for run, state in states.items()))

    names, baselines, then = {run: str(run.dir.relative_to(arguments.out)) for run in runs}, {}, {}
    if arguments.what == "demo":
        baselines = {root: ("evaluate.py", "--oracle", "--linear", "--data", root) for root in arguments.data}
        names |= dict.fromkeys(baselines, "baselines")
        then = {run: ("evaluate.py", run.dir) for run in waiting if run.script == "train_seg.py"}
    else:
        waiting.sort(key=lambda run: run.script != "train_mae.py")  # pretraining takes longest, and others wait for it
    words = {**baselines, **{run: (run.script, run.config, *run.overrides) for run in waiting}}
    after = {run: run.after for run in waiting if run.after in words}
    side_by_side(words, after, arguments.jobs, names.get, then)


def score_runs(runs, root, path, *more):
    """-> the rows of evaluate.py."""
    data = ("--data", root) if root else ()
    command("evaluate.py", *(run.dir for run in runs), *more, *data, "--out", path)
    return json.loads((ROOT / path).read_text())["rows"]


def score_lsr(arguments, root, seed):
    """The row of Self-Epitomic LSR, in a list; it takes longest, so what is scored is kept, as a run is."""
    path = folder(arguments, root) / f"lsr-{arguments.lsr_patches}-{seed}.json"
    kept = json.loads(path.read_text()) if is_of(root, path) else {}
    if kept.get("data") != str(root) or not SCORES.keys() <= kept["rows"][0].keys():
        return score_runs([], root, path, "--lsr", "--lsr-patches", arguments.lsr_patches, "--lsr-seed", seed)
    print(f"Self-Epitomic LSR of seed {seed} is complete: {path}")
    return kept["rows"]
