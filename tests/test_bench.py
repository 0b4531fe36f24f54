import json
import subprocess
import sys

import pytest
import torch
from commands import ROOT, error_of, run_script

KEYS = {"stage", "what", "ours", "peer", "ratio", "limit", "unit", "peer_name"}


def test_one_stage_prints_its_rows_and_writes_them_as_json(tmp_path):
    printed = run_script("bench.py", "--stages", "3", "--px", "64", "--repeats", "1", "--out", tmp_path / "bench.json")
    written = json.loads((tmp_path / "bench.json").read_text())
    assert written["device"] == "cpu" and written["px"] == 64 and written["skipped"] == []
    assert [row["what"] for row in written["rows"]] == ["region sums by blocks", "region sums by pixels"]
    for row in written["rows"]:
        assert row.keys() == KEYS and row["stage"] == 3 and row["what"] in printed
        assert abs(row["ratio"] - row["ours"] / row["peer"]) < 1e-9 and row["limit"] == row["peer"] > 0


    table = (tmp_path / "bench.md").read_text().splitlines()
    assert "| 3 | region sums by blocks |" in table[4] and len(table) == 6


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_report_of_a_gpu_needs_one(tmp_path):
    assert "torch sees no GPU here" in error_of("bench.py", "--gpu-report", tmp_path / "gpu.json")
    assert not list(tmp_path.iterdir())


def test_a_missing_peer_is_named_and_its_column_left_empty(tmp_path):
    program = (  # as where the extra is not installed
        "import sys; sys.modules['rasterio'] = None; sys.argv = ['bench.py', '--stages', '4', '--px', '64', "
        f"'--repeats', '1', '--out', {str(tmp_path / 'bench.json')!r}]; "
        "import runpy; runpy.run_path('bench.py', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "skipped: stage 4: the peer rasterio is not installed" in done.stdout
    row, *_ = json.loads((tmp_path / "bench.json").read_text())["rows"]
    assert row["ours"] > 0 and row["peer"] is None and row["ratio"] is None


def test_a_stage_that_is_none_is_refused():
    assert "give some of 1 to 10" in error_of("bench.py", "--stages", "3,11")
