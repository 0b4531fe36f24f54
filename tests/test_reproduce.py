import builtins
import json

import pytest
from commands import run_script
from PIL import Image

import figures
from reproduce import mean_and_spread, numbers, table

FAST = ["train.epochs=1", "model.width=8", "data.workers=0"]


def test_the_demo_prints_a_row_for_each_method_with_the_papers_beside_it(tile_set, tmp_path):
    printed = run_script("reproduce.py", "demo", "--data", tile_set, "--out", tmp_path, *FAST)
    lines = {line.split("  ")[0]: line for line in printed.splitlines()}
    rows = json.loads((tmp_path / "scores-0.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["Oracle", "Low", "Agg", "Agg+App", "High"]
    for row, paper in zip(rows, ("60.28", "64.25", "62.52", "69.84", "83.59"), strict=True):
        assert f"{100 * row['miou']:.2f}" in lines[row["name"]] and paper in lines[row["name"]]
    assert Image.open(tmp_path / "figure6-0.png").width > 6 * 64
    # A second call trains nothing: what is complete stays.
    before = (tmp_path / "agg-0" / "last.pt").stat().st_mtime_ns
    run_script("reproduce.py", "demo", "--data", tile_set, "--out", tmp_path, *FAST)
    assert (tmp_path / "agg-0" / "last.pt").stat().st_mtime_ns == before


def test_figure5_writes_numbers_and_a_curve(tile_set, tmp_path):
    pytest.importorskip("matplotlib")
    arguments = ["--data", tile_set, "--out", tmp_path, "--exemplars", "4,2", *FAST]
    printed = run_script("reproduce.py", "figure5", *arguments)
    result = json.loads((tmp_path / "figure5.json").read_text())
    assert list(result["macro_f1"]) == ["2", "4"] and len(result["low_macro_f1"]) == 1
    assert f"{100 * result['macro_f1']['4'][0]:.2f}" in printed
    assert Image.open(tmp_path / "figure5.png").width > 100


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


def test_a_short_run_of_high_beats_the_majority_class(tile_set, tmp_path):
    run_dir, out = tmp_path / "high", tmp_path / "scores.json"
    more = ["train.epochs=20", "train.batch_size=10", "model.width=8", "data.workers=0"]
    run_script("train_seg.py", "configs/demo/high.yaml", f"data.root={tile_set}", f"run.dir={run_dir}", *more)
    run_script("evaluate.py", run_dir, "--data", tile_set, "--out", out)
    (row,) = json.loads(out.read_text())["rows"]
    truth = [sum(line) for line in row["confusion"]]
    majority_accuracy, majority_iou = max(truth) / sum(truth), max(truth) / sum(truth) / 4
    assert row["accuracy"] > majority_accuracy + 0.05 and row["miou"] > 1.5 * majority_iou
