import contextlib
import io
import itertools
import json
import os
import shutil
import signal
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import ROOT, run_script
from made_runs import assert_same, relisted, saved, trained
from PIL import Image

import evaluate
import reproduce
from config import PretrainConfig, SegmenterConfig
from data.tiles import TileSet
from reports import baselines
from reports.rows import BEYOND, CONFIGS, PRETRAINED, PlannedRun, row_runs
from reports.tables import added, as_markdown, as_values, differences, gap_closed, mean_and_spread, rows_of
from reproduce import numbers
from runtime import children
from runtime.errors import Refused
from runtime.settings import load_config, to_yaml

FAST = ["train.epochs=1", "model.width=8", "data.workers=0"]


def reproduced(*words):
    """reproduce.py in this process, with forks of its commands -> what it printed."""

    def forked(words, name, pool):
        print("$ python", *words)
        print(*(f"[{name}] {line}" for line in run_script(*words).splitlines()), sep="\n")

    heeded = signal.getsignal(signal.SIGTERM)  # children.py has its own; a module's fixture runs before a test's
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
        patch.setattr(children, "_run_one", forked)
        patch.setattr(sys, "argv", ["reproduce.py", *map(str, words)])
        reproduce.main(reproduce.parsed())
    signal.signal(signal.SIGTERM, heeded)
    return printed.getvalue()


@pytest.fixture(scope="module")
def demo(tile_set, tmp_path_factory):
    """The demo on a small tile set: its folder, and what it printed."""
    out = tmp_path_factory.mktemp("demo")
    return out, reproduced("demo", "--data", tile_set, "--out", out, "--jobs", 2, *FAST)


def test_the_demo_prints_a_row_for_each_method_with_the_papers_beside_it(demo):
    out, printed = demo
    plan = printed[: printed.index("$ python train_")]
    assert "6 of 6 runs to train" in plan and f"new       {out / 'mae-0'}" in plan
    lines = {line.split("|")[1].strip(): line for line in printed.splitlines() if line.startswith("|")}
    rows = json.loads((out / "demo-0.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["Oracle", "Linear", "Low", "Agg", "Agg+App", "Ours", "High"]
    for row, paper in zip(rows, ("60.28", "", "64.25", "62.52", "69.84", "71.69", "83.59"), strict=True):
        assert f"{100 * row['miou']:.2f}" in lines[row["name"]] and paper in lines[row["name"]]
    assert Image.open(out / "figure6-0.png").width > 6 * 64
    assert (out / "demo.md").read_text() in printed
    table = json.loads((out / "demo.json").read_text())["rows"]
    assert [row["miou"] for row in table] == [[row["miou"]] for row in rows] and table[2]["paper"]["miou"] == 0.6425


def test_two_runs_at_a_time_train_what_one_alone_does(demo, tile_set, tmp_path):
    out, printed = demo
    assert "[low-0] " in printed and "[ours-0] " in printed
    start = f"model.init={out / 'mae-0' / 'resnet18.pt'}"  # which Ours waited for
    for name, more in (("low", []), ("ours", [start])):
        words = [*FAST, *more, f"data.root={tile_set}", f"run.dir={tmp_path / name}"]
        ours, alone = saved(out / f"{name}-0"), trained(f"configs/demo/{name}.yaml", *words)
        for part in ("segmenter", "averaged", "optimizer"):
            assert_same(ours[part], alone[part], part, 0)


def test_tables_share_runs_and_train_what_is_not_complete(demo, tile_set):
    out, _ = demo
    (out / "low-0" / "metrics.json").unlink()  # as of a run that was stopped
    same = ["--data", tile_set, "--out", out, "--lsr-patches", 20, *FAST]
    printed = reproduced("table1", *same)
    assert "1 of 2 runs to train" in printed and f"resumes   {out / 'low-0'}" in printed
    assert printed.count("$ python train_") == 1 and "69.11" in printed
    rows = [row["row"] for row in json.loads((out / "table1.json").read_text())["rows"]]
    assert rows == ["Oracle", "Self-Epitomic LSR", "Linear", "Low", "High"]
    again = reproduced("table1", *same)
    assert "0 of 2 runs to train" in again and "--lsr-seed" not in again and "train_seg" not in again
    other = run_script("reproduce.py", "table1", *same, "train.learning_rate=1e-5", status=2)
    assert "low-0 holds a run with train.learning_rate=0.002, not 1e-05" in other and "$ python" not in other


def test_a_run_that_started_elsewhere_is_another_and_one_that_was_moved_is_not(tmp_path):
    def run_of(root, start="mae-0/resnet18.pt"):
        out = root / "runs"
        words = f"data.root={out / 'tiles'}", f"run.dir={out / 'ours-0'}", f"model.init={out / start}"
        return PlannedRun("train_seg.py", Path("configs/demo/ours.yaml"), out / "ours-0", words)

    first = run_of(tmp_path / "first")
    first.dir.mkdir(parents=True)
    (first.dir / "config.yaml").write_text(to_yaml(load_config(SegmenterConfig, ROOT / first.config, first.overrides)))
    (first.dir.parent / "tiles").mkdir()
    for name, state in (("last.pt", "resumes"), ("../tiles/dataset.yaml", "resumes"), ("metrics.json", "complete")):
        (first.dir / name).touch()
        assert first.state() == state
    os.utime(first.dir / "metrics.json", (0, 0))  # of a time before the tile set was made anew
    assert first.state() == "resumes"
    with pytest.raises(Refused, match="ours-0: the run that it started from, .*mae-0, has no last.pt; bring it"):
        replace(first, after=replace(first, dir=first.dir.with_name("mae-0"))).state()
    shutil.move(tmp_path / "first", tmp_path / "second")
    assert first.state() == "new" and run_of(tmp_path / "second").state() == "resumes"
    with pytest.raises(Refused, match="second/runs/ours-0 holds a run with model.init=.*first"):
        run_of(tmp_path / "second", "mae-1/resnet18.pt").state()


def test_configs_that_start_from_weights_name_those_that_the_tables_make():
    places = {"demo": ["runs/demo/tiles"], "naip215": ["runs/naip215/r0", "runs/naip215/r1"]}  # as the README has them
    for (folder, given), out in zip(places.items(), (Path("runs/demo"), Path("runs/tables")), strict=True):
        root, *_ = given = [Path(place) for place in given]
        arguments = arguments_of(what="table2", data=given, out=out, configs=Path("configs") / folder)
        for row, name in {**CONFIGS, **BEYOND}.items():
            if row in PRETRAINED:
                before, _ = row_runs(arguments, row, root, 0)
                config = load_config(SegmenterConfig, ROOT / "configs" / folder / name)
                assert config.model.init == str(before.dir / "resnet18.pt")
        assert load_config(PretrainConfig, ROOT / "configs" / folder / "mae.yaml").run.dir == str(before.dir)


def test_figures_2_and_6_draw_the_tiles_that_are_named(demo, tile_set):
    out, _ = demo
    rows = (tile_set / "tiles.csv").read_text().splitlines()
    names = [row.split(",")[0] for row in rows if ",test," in row]
    run_script("reproduce.py", "figure2", "--data", tile_set, "--out", out, "--tiles", ",".join(names[:2]))
    reproduced("figure6", "--data", tile_set, "--out", out, "--tiles", names[0], *FAST)
    pairs, sheet = Image.open(out / "figure2.png"), Image.open(out / "figure6-0.png")
    assert (pairs.width - 6) // 70 == 3 and (sheet.width - 6) // 70 == 6  # image, labels; and High, Low, Ours
    assert pairs.height - sheet.height == 70 + 2 * 22  # a tile and two lines of the legend more
    wrong = run_script("reproduce.py", "figure2", "--data", tile_set, "--tiles", names[0] + "x", status=2)
    assert f"did you mean {names[0]}?" in wrong


def test_figure5_writes_numbers_and_a_curve(demo, tile_set):
    pytest.importorskip("matplotlib")
    out, _ = demo
    printed = reproduced("figure5", "--data", tile_set, "--out", out, "--exemplars", "2,4,all", *FAST)
    rows = json.loads((out / "figure5.json").read_text())["rows"]
    assert [row["row"] for row in rows] == ["Low", "K=2", "K=4", "K=all"] and len(rows[1]["macro_f1"]) == 1
    assert f"{100 * rows[2]['macro_f1'][0]:.2f}" in printed
    assert Image.open(out / "figure5.png").width > 100
    assert "2 of 4 runs to train" in printed and f"complete  {out / 'agg_app-0'}" in printed  # all of them is Agg+App
    assert "exemplars: 4\n" in (out / "agg_app-K4-0" / "config.yaml").read_text()
    of_demo = {row["row"]: row for row in json.loads((out / "demo.json").read_text())["rows"]}
    assert rows[3]["macro_f1"] == of_demo["Agg+App"]["macro_f1"]


def scored(name, score):
    """A row of evaluate.py, its scores all the same, its counts two borders and a pixel."""
    same = dict.fromkeys(("accuracy", "macro_f1", "miou", "border_f1"), score)
    counts = {"confusion": [[1, 0], [0, 0]], "border": [2, 2, 2, 2]}
    return {"name": name, **same, "per_class": {"water": {}, "forest": {}}, **counts}


def test_tables_hold_ours_and_the_papers_as_markdown_and_values():
    rows = rows_of({"set": [[scored(name, score) for name in ("Low", "K=4")] for score in (0.5, 0.7)]})
    lines = as_markdown(("row",), rows).splitlines()
    assert len({len(line) for line in lines}) == 1  # a terminal shows columns
    head, rule, low, k = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines)
    assert head == ["row", "Acc", "F1", "mIoU", "border", "paper: Acc", "paper: F1", "paper: mIoU"]
    assert low == ["Low", *["60.00 +- 14.14"] * 4, "84.40", "76.16", "64.25"] and k[5:] == [""] * 3
    assert all(set(cell) == {"-"} for cell in rule)
    assert numbers("4,16,all") == [4, 16, 0]
    values = as_values(("row",), rows)
    assert values[0]["accuracy"] == values[0]["border_f1"] == [0.5, 0.7] and values[1]["paper"] == {}
    assert values[0]["sum"]["miou"] == [0.5, 0.7]


def part_of(tile_set, root, keep):
    """The tile set with those test tiles alone that `keep` takes by their number."""
    numbers = itertools.count()
    return relisted(tile_set, root, lambda rows: [r for r in rows if r["split"] != "test" or keep(next(numbers))])


def oracle(root, name="Oracle"):
    tiles = TileSet(root, "test", needs=("high", "low"))
    return {"name": name, **evaluate.report(baselines.oracle(tiles))}


def test_counts_of_several_tile_sets_added_up_are_those_of_one_set(tile_set, tmp_path):
    parts = [part_of(tile_set, tmp_path / str(k), lambda i, k=k: i % 2 == k) for k in (0, 1)]
    whole, (first, second) = oracle(tile_set), map(oracle, parts)
    assert first["confusion"] != second["confusion"]
    total = added([first, second])
    for key in ("accuracy", "macro_f1", "miou", "border_f1"):
        assert total[key] == whole[key]
    (row,) = rows_of({part: [[oracle(part)]] for part in parts})
    assert [seed["miou"] for seed in row.seeds] == [first["miou"], second["miou"]] and row.sums == [total]
    text, (values,) = as_markdown(("row",), [row]), as_values(("row",), [row])
    assert f"{mean_and_spread([first['miou'], second['miou']])}" in text
    assert values["sum"]["border_f1"] == [whole["border_f1"]] and len(values["miou"]) == 2


def arguments_of(**more):
    """What reproduce.py's main gives a table: of its defaults those that tables read."""
    defaults = {"configs": Path("configs/naip215"), "seeds": 2, "overrides": []}
    return SimpleNamespace(**{**dict.fromkeys(("auxiliary", "tiles", "other")), **defaults, **more})


@pytest.fixture
def without_training(monkeypatch):
    """reproduce.py without its commands: runs are noted, and scored as the Oracle of their tile set is, and better."""
    planned, asked = [], []

    def score(runs, root, path, *more):
        asked.append((root, path, more))
        root = root or dict(zip(more[::2], more[1::2], strict=True))["--data"]
        names = [dict(word.split("=", 1) for word in run.overrides).get("run.name", run.dir.name[:-2]) for run in runs]
        rows = [oracle(root, {"low": "Low", "high": "High", "agg": "Agg"}.get(name, name)) for name in names]
        return [{**row, "miou": row["miou"] + 0.1 * i} for i, row in enumerate(rows)]

    monkeypatch.setattr(reproduce, "train", lambda arguments, runs: planned.extend(runs))
    monkeypatch.setattr(reproduce, "score_runs", score)
    return planned, asked


def test_a_table_of_several_tile_sets_holds_each_set_in_a_folder_and_their_sum(tile_set, tmp_path, without_training):
    planned, asked = without_training
    parts = [part_of(tile_set, tmp_path / f"r{k}", lambda i, k=k: i % 2 == k) for k in (0, 1)]
    reproduce.table2(arguments_of(what="table2", data=parts, out=tmp_path))
    dirs = [run.dir for run in planned]
    assert len(set(dirs)) == len(dirs) == 2 * 2 * 7  # sets, seeds; six rows, the literal sums among them, and a mae
    assert {run.parent.name for run in dirs} == {"r0", "r1"}
    for run in planned:
        words = dict(word.split("=", 1) for word in run.overrides)
        assert words["data.root"] == str(tmp_path / run.dir.parent.name) and words["run.seed"] == run.dir.name[-1]
    assert [path.relative_to(tmp_path).as_posix() for _, path, _ in asked] == [
        f"{root}/table2-{seed}.json" for root in ("r0", "r1") for seed in (0, 1)
    ]
    written = json.loads((tmp_path / "table2.json").read_text())
    assert [len(row["miou"]) for row in written["rows"]] == [4] * 6
    assert [row["sum"]["accuracy"] for row in written["rows"]] == [[oracle(tile_set)["accuracy"]] * 2] * 6
    assert any(note.startswith("gap in mIoU from Low to High, over all tiles: ") for note in written["notes"])


def test_table3_tests_three_starts_at_home_left_out_and_elsewhere(tile_set, tmp_path, without_training):
    planned, asked = without_training
    more = {"left_out_split": "test", "auxiliary": tile_set, "other": tile_set, "configs": Path("configs/demo")}
    reproduce.table3(arguments_of(what="table3", data=[tile_set], out=tmp_path, leave_out=["coast"], seeds=1, **more))
    rows = json.loads((tmp_path / "table3.json").read_text())["rows"]
    starts, places = ("none", "own", "auxiliary"), ("own", "left out", "other")
    assert [(row["pretrained on"], row["tested on"]) for row in rows] == [(s, p) for p in places for s in starts]
    scores = [evaluate.main(evaluate.parse(["--oracle", *map(str, words)])) for _, _, words in asked]
    pixels = [sum(map(sum, score["rows"][0]["confusion"])) for score in scores]
    assert pixels == [3 * 64 * 64, 64 * 64, 80 * 64 * 64]  # of another set all splits, as Sec. 3.2 tests Milwaukee
    assert all(said in (tmp_path / "table3.md").read_text() for said in ("71.01", "| auxiliary     | other     |"))
    runs = {run.dir.name: run.overrides for run in planned}
    without = {name for name, words in runs.items() if "data.exclude_regions=[coast]" in words}
    assert without == {"mae-own-0", "none-0", "own-0", "auxiliary-0"} == runs.keys() - {"mae-auxiliary-0"}


def test_table3_on_several_sets_leaves_out_the_places_that_each_tests(tile_set, tmp_path, without_training):
    planned, asked = without_training
    regions = sorted({row["region"] for row in TileSet(tile_set, "all").rows})

    def tested(region, rows):  # it is tested, and no other is
        kept = [row for row in rows if row["region"] != region and row["split"] != "test"]
        return kept + [{**row, "split": "test"} for row in rows if row["region"] == region and row["split"] == "train"]

    roots = [relisted(tile_set, tmp_path / region, partial(tested, region)) for region in regions[:2]]
    more = {"leave_out": None, "left_out_split": "test", "other": None}
    reproduce.table3(arguments_of(what="table3", data=roots, out=tmp_path, **more))
    # Only the test split has these regions: the runs are those of Table 2, and need not be told.
    assert {run.dir.name for run in planned} == {f"{row}-{k}" for row in ("agg_app", "mae", "ours") for k in (0, 1)}
    assert not any("exclude_regions" in word for run in planned for word in run.overrides)
    for _, path, words in asked:
        words, region, own = dict(zip(words[::2], words[1::2], strict=True)), path.parent.name, "own" in path.name
        assert words["--split"] == ("validation" if own else "test") and words["--data"] == tmp_path / region
        assert words["--regions"] == (",".join(r for r in regions if r != region) if own else region)
    rows = json.loads((tmp_path / "table3.json").read_text())["rows"]
    assert [(row["pretrained on"], row["tested on"]) for row in rows] == [
        (start, place) for place in ("own", "left out") for start in ("none", "own")
    ]
    assert all(len(row["miou"]) == 4 and len(row["sum"]["miou"]) == 2 for row in rows)


def test_the_share_of_the_gap_is_over_all_tiles_and_undefined_where_seeds_spread_wider():
    def closed(*sets, names=("Low", "Agg+App", "High")):
        """sets: of each tile set, of each seed, the rows' mIoUs."""
        rows = [[[scored(n, m) for n, m in zip(names, seed, strict=True)] for seed in seeds] for seeds in sets]
        return gap_closed(rows_of(dict(enumerate(rows))))

    clear = closed([(0.50, 0.53, 0.60), (0.50, 0.52, 0.61)])
    assert clear[0] == "gap in mIoU from Low to High, over all tiles: 10.50 +- 0.71"
    assert clear[1] == "Agg+App closes 23.8 % of it"
    assert "undefined" in closed([(0.5, 0.5, 0.6), (0.5, 0.5, 0.4)])[1]
    assert closed([(0.5, 0.5, 0.6)]) == []
    # Two classes of 20 pixels in two sets: 8, 4 and 0 of each are wrong together.
    rows = [[[{**scored(n, 0.5), "confusion": [[10 - w, w], [w, 10 - w]]}
              for n, w in zip(("Low", "Agg", "High"), wrong, strict=True)]]
            for wrong in ((3, 1, 0), (5, 3, 0))]  # fmt: skip
    low, agg, high = 12 / 28, 16 / 24, 1
    lines = gap_closed(rows_of(dict(enumerate(rows))))
    assert lines[0] == f"gap in mIoU from Low to High, over all tiles: {100 * (high - low):.2f}"
    assert lines[1] == f"Agg closes {100 * (agg - low) / (high - low):.1f} % of it"


def test_differences_are_paired_and_say_where_none_could_be_told():
    seeds = [(0.50, 0.60, 0.61), (0.52, 0.61, 0.60), (0.48, 0.59, 0.61)]
    rows = [[[scored(n, m) for n, m in zip(("Low", "Agg", "Agg+App"), seed, strict=True)] for seed in seeds]]
    agg, app, against_low = differences(rows_of(dict(enumerate(rows))))
    mean, half = 10.0, 4.303 * 1.0 / 3**0.5  # of 10, 9 and 11
    assert agg == f"Agg - Low: +{mean:.2f} +- {half:.2f} mIoU (95 %, 3 pairs)"
    assert app.startswith("Agg+App - Agg: +0.67 +- ") and app.endswith(": no difference that could be told")
    assert against_low.startswith("Agg+App - Low: +10.67 +- ") and against_low.endswith("pairs)")
    assert differences(rows_of({0: rows[0][:1]})) == []


def test_a_short_run_of_high_beats_the_majority_class(tile_set, tmp_path):
    run_dir, out = tmp_path / "high", tmp_path / "scores.json"
    more = ["train.epochs=25", "train.batch_size=10", "train.learning_rate=2e-3", "train.average=0", "model.width=8"]
    run_script("train_seg.py", "configs/demo/high.yaml", f"data.root={tile_set}", f"run.dir={run_dir}", *more)
    run_script("evaluate.py", run_dir, "--data", tile_set, "--out", out)
    (row,) = json.loads(out.read_text())["rows"]
    truth = [sum(line) for line in row["confusion"]]
    majority = max(truth) / sum(truth)
    assert row["accuracy"] > majority + 0.05 and row["miou"] > 1.5 * majority / 4


def test_beyond_scores_its_rows_twice_and_says_the_share(tile_set, tmp_path, without_training):
    planned, asked = without_training
    roots = [part_of(tile_set, tmp_path / name, lambda i, odd=odd: i % 2 == odd) for odd, name in enumerate("ab")]
    reproduce.beyond(arguments_of(what="beyond", data=roots, out=tmp_path))
    values = json.loads((tmp_path / "beyond.json").read_text())
    rows, observed = [row["row"] for row in values["rows"]], ["obs", "obs_app", "obs_app_pre"]
    assert rows == ["Low", "agg_literal", "Agg", "agg_app", "ours", "High", *observed, *observed]
    assert [words for _, _, words in asked if "--coarse" in words] == [("--coarse",)] * 4  # two sets, two seeds
    assert "obs_app_pre closes" in "\n".join(values["notes"])
    (pretrained,) = (run for run in planned if run.dir == tmp_path / "a" / "obs_app_pre-1")
    (start,) = (word for word in pretrained.overrides if "init" in word)
    assert start == f"model.init={tmp_path / 'a' / 'mae-1' / 'resnet18.pt'}"


def test_what_cannot_be_made_is_one_line(tile_set, tmp_path):
    printed = run_script("reproduce.py", "demo", "--data", tile_set, "--out", tmp_path, "train.epochs=0", status=2)
    assert "train.epochs=0" in printed and "Traceback" not in printed
    other = shutil.copytree(tile_set, tmp_path / "elsewhere" / tile_set.name)
    (other / "dataset.yaml").write_text((tile_set / "dataset.yaml").read_text().replace("water", "pond"))
    for said, what, more in (
        ("two tile sets have the same name", "table2", {"data": [tile_set, other]}),
        ("run.seed=7: reproduce.py sets this itself, for each row", "table2", {"overrides": ["run.seed=7"]}),
        (f"{tile_set} and {other}: differ in their classes or in their order", "table2", {"other": other}),
        ("model.init=none: reproduce.py sets this", "table3", {"overrides": ["model.init=none"]}),
        ("each region has test tiles; give --leave-out", "table3", {"leave_out": None, "left_out_split": "test"}),
        ("figure5 needs --data ROOT", "figure5", {"data": None}),
    ):
        with pytest.raises(Refused, match=said):
            reproduce.main(arguments_of(what=what, **{"data": [tile_set], **more}))
