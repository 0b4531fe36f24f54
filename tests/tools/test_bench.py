import json
import subprocess
import sys

from commands import ROOT, error_of, run_script

KEYS = {"stage", "what", "ours", "peer", "ratio", "unit", "peer_name"}


def test_a_stage_prints_its_rows_and_writes_them_as_json(tile_set, tmp_path):
    out = tmp_path / "bench.json"
    words = "--stages", "2", "--px", "64", "--repeats", "1", "--data", tile_set, "--device", "cpu", "--out", out
    printed = run_script("-m", "tools.bench", *words)
    written = json.loads(out.read_text())
    assert written["device"] == "cpu" and written["px"] == 64 and written["skipped"] == []
    assert [row["what"] for row in written["rows"]] == ["step of Low", "step of Agg", "step of Agg+App"]
    for row in written["rows"]:
        assert row.keys() == KEYS and row["stage"] == 2 and row["what"] in printed
        assert abs(row["ratio"] - row["ours"] / row["peer"]) < 1e-9


def test_a_missing_peer_is_named_and_its_column_left_empty(tmp_path):
    program = (  # as where the extra is not installed, on made-up tiles
        "import sys; sys.modules['rasterio'] = None; sys.argv = ['bench', '--stages', '3', '--px', '64', "
        f"'--repeats', '1', '--out', {str(tmp_path / 'bench.json')!r}]; "
        "import runpy; runpy.run_module('tools.bench', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "skipped: stage 3: the peer rasterio is not installed" in done.stdout
    rows = json.loads((tmp_path / "bench.json").read_text())["rows"]
    assert len(rows) == 2 and all(row["ours"] > 0 and row["peer"] is None and row["ratio"] is None for row in rows)


def test_a_stage_that_is_none_is_refused():
    assert "give some of 1 to 4" in error_of("-m", "tools.bench", "--stages", "3,11")
