import builtins
import json

import pytest
from commands import run_script
from PIL import Image

import figures
from reproduce import gap_closed, mean_and_spread, numbers, table

FAST = ["train.epochs=1", "model.width=8", "data.workers=0"]


def test_the_demo_prints_a_row_for_each_method_with_the_papers_beside_it(tile_set, tmp_path):
    printed = run_script("reproduce.py", "demo", "--data", tile_set, "--out", tmp_path, *FAST)
    lines = {line.split("  ")[0]: line for line in printed.splitlines()}
    rows = json.loads((tmp_path / "scores-0.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["Oracle", "Low", "Agg", "Agg+App", "Ours", "High"]
    for row, paper in zip(rows, ("60.28", "64.25", "62.52", "69.84", "71.69", "83.59"), strict=True):
        assert f"{100 * row['miou']:.2f}" in lines[row["name"]] and paper in lines[row["name"]]
    assert Image.open(tmp_path / "figure6-0.png").width > 6 * 64
    assert (tmp_path / "demo.md").read_text().count("\n") == 2 + len(rows)


def test_figure5_writes_numbers_and_a_curve(tile_set, tmp_path):
    pytest.importorskip("matplotlib")
    arguments = ["--data", tile_set, "--out", tmp_path, "--exemplars", "4,2", *FAST]
    printed = run_script("reproduce.py", "figure5", *arguments)
    result = json.loads((tmp_path / "figure5.json").read_text())
    assert list(result["macro_f1"]) == ["2", "4"] and len(result["low_macro_f1"]) == 1
    assert f"{100 * result['macro_f1']['4'][0]:.2f}" in printed
    assert Image.open(tmp_path / "figure5.png").width > 100


def test_table3_tests_three_starts_at_home_left_out_and_elsewhere(tile_set, tmp_path):
    arguments = ["--data", tile_set, "--leave-out", "coast", "--auxiliary", tile_set, "--other", tile_set]
    printed = run_script("reproduce.py", "table3", *arguments, "--out", tmp_path, *FAST)
    result = json.loads((tmp_path / "table3.json").read_text())
    starts, places = ("none", "own", "auxiliary"), ("own", "left out", "other")
    assert set(result) == {f"{start} -> {place}" for start in starts for place in places}
    pixels = [sum(map(sum, result[f"none -> {place}"][0]["confusion"])) for place in places]
    assert pixels == [3 * 64 * 64, 64 * 64, 4 * 64 * 64]
    assert "71.01" in printed and "35.51" in printed
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
    rows = [[{"name": "Low", "accuracy": a, "macro_f1": a, "miou": a}] for a in (0.5, 0.7)]
    assert "60.00 +- 14.14" in table(rows) and "64.25" in table(rows)
    assert numbers("40,4,4") == [4, 40]


def test_the_share_of_the_gap_is_undefined_where_seeds_spread_wider():
    def seeds(*mious):
        return [[{"name": n, "miou": m} for n, m in zip(("Low", "Agg+App", "High"), row, strict=True)] for row in mious]

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
