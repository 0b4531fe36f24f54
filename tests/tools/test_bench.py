import json

from commands import error_of, run_script

from tools import bench


def test_a_stage_prints_its_rows_and_writes_them_as_json(tile_set, tmp_path, monkeypatch, capsys):
    out = tmp_path / "bench.json"
    monkeypatch.setattr("sys.argv", f"bench --stages 2,4 --px 64 --device cpu --data {tile_set} --out {out}".split())
    monkeypatch.setattr(bench.training_rates, "__defaults__", (1,))  # turns
    monkeypatch.setattr(bench, "WIDTH", 8)
    monkeypatch.setattr(bench, "run_command", lambda *words: run_script(*words, "data.workers=0"))
    bench.main(bench.parse())
    written, printed = json.loads(out.read_text()), capsys.readouterr().out
    assert written["device"] == "cpu" and written["px"] == 64
    expected = [(2, f"step of {row}") for row in ("Low", "Agg", "Agg+App")] + [(4, "64 px, zlib"), (4, "64 px, none")]
    assert [(row["stage"], row["what"]) for row in written["rows"]] == expected
    for row in written["rows"]:
        assert row.keys() == {"stage", "what", "ours", "peer", "ratio", "unit", "peer_name"}
        assert row["what"] in printed and abs(row["ratio"] - row["ours"] / row["peer"]) < 1e-9
    assert "give some of 1 to 4" in error_of("-m", "tools.bench", "--stages", "3,11")
