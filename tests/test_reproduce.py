import builtins
import json

import pytest
from commands import run_script
from PIL import Image

import figures
from reproduce import numbers
from tables import as_markdown, as_text, as_values, gap_closed, mean_and_spread, rows_of

FAST = ["train.epochs=1", "model.width=8", "data.workers=0"]


@pytest.fixture(scope="module")
def demo(tile_set, tmp_path_factory):
    """The demo on a small tile set: its folder, and what it printed."""
    out = tmp_path_factory.mktemp("demo")
    return out, run_script("reproduce.py", "demo", "--data", tile_set, "--out", out, *FAST)


def test_the_demo_prints_a_row_for_each_method_with_the_papers_beside_it(demo):
    out, printed = demo
    lines = {line.split("  ")[0]: line for line in printed.splitlines()}
    rows = json.loads((out / "demo-0.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["Oracle", "Low", "Agg", "Agg+App", "Ours", "High"]
    for row, paper in zip(rows, ("60.28", "64.25", "62.52", "69.84", "71.69", "83.59"), strict=True):
        assert f"{100 * row['miou']:.2f}" in lines[row["name"]] and paper in lines[row["name"]]
    assert Image.open(out / "figure6-0.png").width > 6 * 64
    assert (out / "demo.md").read_text().count("\n") == 2 + len(rows)
    table = json.loads((out / "demo.json").read_text())["rows"]
    assert [row["miou"] for row in table] == [[row["miou"]] for row in rows] and table[1]["paper"]["miou"] == 0.6425


def test_what_is_to_be_trained_is_listed_before_the_first_run(demo):
    out, printed = demo
    plan = printed[: printed.index("$ python train_")]
    assert "6 of 6 runs to train" in plan and f"new       {out / 'mae-0'}" in plan


def test_tables_share_runs_and_train_what_is_not_complete(demo, tile_set):
    out, _ = demo
    (out / "low-0" / "metrics.json").unlink()  # as of a run that was stopped
    same = ["--data", tile_set, "--out", out, "--lsr-patches", 20, *FAST]
    printed = run_script("reproduce.py", "table1", *same)
    assert "1 of 2 runs to train" in printed and f"goes on   {out / 'low-0'}" in printed
    assert printed.count("$ python train_") == 1 and "69.11" in printed
    rows = [row["row"] for row in json.loads((out / "table1.json").read_text())["rows"]]
    assert rows == ["Oracle", "Self-Epitomic LSR", "Low", "High"]
    again = run_script("reproduce.py", "table1", *same)
    assert "0 of 2 runs to train" in again and "--lsr-seed" not in again and "train_seg" not in again


def test_a_folder_that_holds_another_experiment_stops_before_any_training(demo, tile_set):
    out, _ = demo
    other = ["--data", tile_set, "--out", out, *FAST, "train.learning_rate=1e-5"]
    printed = run_script("reproduce.py", "table2", *other, status=2)
    assert "low-0 holds a run with train.learning_rate=0.002, not 1e-05" in printed and "$ python" not in printed


def test_figures_2_and_6_draw_the_tiles_that_are_named(demo, tile_set):
    out, _ = demo
    rows = (tile_set / "tiles.csv").read_text().splitlines()
    names = [row.split(",")[0] for row in rows if ",test," in row]
    run_script("reproduce.py", "figure2", "--data", tile_set, "--out", out, "--tiles", ",".join(names[:2]))
    run_script("reproduce.py", "figure6", "--data", tile_set, "--out", out, "--tiles", names[0], *FAST)
    pairs, sheet = Image.open(out / "figure2.png"), Image.open(out / "figure6-0.png")
    assert (pairs.width - 6) // 70 == 3 and (sheet.width - 6) // 70 == 6  # image, labels; and High, Low, Ours
    assert pairs.height - sheet.height == 70
    wrong = run_script("reproduce.py", "figure2", "--data", tile_set, "--tiles", names[0] + "x", status=2)
    assert f"did you mean {names[0]}?" in wrong


def test_figure5_writes_numbers_and_a_curve(tile_set, tmp_path):
    pytest.importorskip("matplotlib")
    arguments = ["--data", tile_set, "--out", tmp_path, "--exemplars", "4,2", *FAST]
    printed = run_script("reproduce.py", "figure5", *arguments)
    rows = json.loads((tmp_path / "figure5.json").read_text())["rows"]
    assert [row["row"] for row in rows] == ["Low", "K=2", "K=4"] and len(rows[1]["macro_f1"]) == 1
    assert f"{100 * rows[2]['macro_f1'][0]:.2f}" in printed
    assert Image.open(tmp_path / "figure5.png").width > 100


def test_table3_tests_three_starts_at_home_left_out_and_elsewhere(tile_set, tmp_path):
    arguments = ["--data", tile_set, "--leave-out", "coast", "--auxiliary", tile_set, "--other", tile_set]
    printed = run_script("reproduce.py", "table3", *arguments, "--out", tmp_path, *FAST)
    rows = json.loads((tmp_path / "table3.json").read_text())["rows"]
    starts, places = ("none", "own", "auxiliary"), ("own", "left out", "other")
    assert [(row["pretrained on"], row["tested on"]) for row in rows] == [(s, p) for p in places for s in starts]
    scores = [json.loads((tmp_path / f"table3-{place.replace(' ', '_')}-0.json").read_text()) for place in places]
    pixels = [sum(map(sum, score["rows"][0]["confusion"])) for score in scores]
    assert pixels == [3 * 64 * 64, 64 * 64, 80 * 64 * 64]  # of another set all splits, as Sec. 3.2 tests Milwaukee
    assert "71.01" in printed and "| auxiliary | other |" in (tmp_path / "table3.md").read_text()
    for run_dir in ("mae-own-0", "none-0", "own-0", "auxiliary-0"):
        assert "exclude_regions:\n  - coast" in (tmp_path / run_dir / "config.yaml").read_text()


def test_a_curve_without_matplotlib_is_one_clear_line(tmp_path, monkeypatch):
    def without(name, *more, real=builtins.__import__):
        if name == "matplotlib":
            raise ImportError
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(figures.PlotError, match="pip install matplotlib"):
        figures.save_curve(tmp_path / "x.png", [1], [[1.0]], ("Low", 1.0), ("K", "F1"))


def test_an_experiment_that_fails_stops_with_status_2(tile_set, tmp_path):
    printed = run_script("reproduce.py", "demo", "--data", tile_set, "--out", tmp_path, "train.epochs=0", status=2)
    assert "train.epochs=0" in printed and "Traceback" not in printed
    assert "--data" in run_script("reproduce.py", "figure5", status=2)


def test_several_seeds_give_mean_and_sample_deviation():
    assert mean_and_spread([0.5]) == "50.00" and mean_and_spread([0.5, 0.6, 0.7]) == "60.00 +- 10.00"
    assert numbers("40,4,4") == [4, 40]


def test_tables_hold_ours_and_the_papers_as_text_markdown_and_values():
    rows = rows_of([[{"name": n, "accuracy": a, "macro_f1": a, "miou": a} for n in ("Low", "K=4")] for a in (0.5, 0.7)])
    assert "60.00 +- 14.14" in as_text(("row",), rows) and "64.25" in as_text(("row",), rows)
    head, line, low, k = as_markdown(("row",), rows).splitlines()
    assert head.count("|") == line.count("|") == low.count("|") == k.count("|") == 8
    assert low.endswith("| 84.40 | 76.16 | 64.25 |") and k.endswith("|  |  |  |")
    assert as_values(("row",), rows)[0]["accuracy"] == [0.5, 0.7] and as_values(("row",), rows)[1]["paper"] == {}


def test_the_share_of_the_gap_is_undefined_where_seeds_spread_wider():
    def seeds(*mious):
        names = "Low", "Agg+App", "High"
        return rows_of([[{"name": n, "miou": m} for n, m in zip(names, row, strict=True)] for row in mious])

    clear = gap_closed(seeds((0.50, 0.53, 0.60), (0.50, 0.52, 0.61)))
    assert clear[0] == "gap in mIoU from Low to High: 10.50 +- 0.71"
    assert clear[1] == "Agg+App closes 23.8 % of it (paper: 28.9 %)"
    assert "undefined" in gap_closed(seeds((0.5, 0.5, 0.6), (0.5, 0.5, 0.4)))[1]
    assert gap_closed(seeds((0.5, 0.5, 0.6))) == []


def test_a_short_run_of_high_beats_the_majority_class(tile_set, tmp_path):
    run_dir, out = tmp_path / "high", tmp_path / "scores.json"
    more = ["train.epochs=25", "train.batch_size=10", "train.learning_rate=2e-3", "train.average=0", "model.width=8"]
    run_script("train_seg.py", "configs/demo/high.yaml", f"data.root={tile_set}", f"run.dir={run_dir}", *more)
    run_script("evaluate.py", run_dir, "--data", tile_set, "--out", out)
    (row,) = json.loads(out.read_text())["rows"]
    truth = [sum(line) for line in row["confusion"]]
    majority_accuracy, majority_iou = max(truth) / sum(truth), max(truth) / sum(truth) / 4
    assert row["accuracy"] > majority_accuracy + 0.05 and row["miou"] > 1.5 * majority_iou
