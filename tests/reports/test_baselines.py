import json
import shutil

import torch
from commands import error_of, run_script
from made_runs import relisted

from data import tile_io
from data.tiles import TileSet
from models.epitomes import NO_CODE
from models.resnet import ResNet18
from reports.baselines import linear, low_codes, open_encoder


def test_linear_is_scored_beside_the_oracle_by_the_same_scores(tile_set, tmp_path):
    out = tmp_path / "scores.json"
    printed = run_script("evaluate.py", "--oracle", "--linear", "--data", tile_set, "--out", out, "--device", "cpu")
    oracle, closed_form = json.loads(out.read_text())["rows"]
    assert closed_form["name"] == "Linear" and closed_form.keys() == oracle.keys()
    assert sum(map(sum, closed_form["confusion"])) == sum(map(sum, oracle["confusion"]))
    assert closed_form["border_f1"] > 1.5 * oracle["border_f1"]  # it is no block
    assert f"{100 * closed_form['miou']:.2f}" in printed


def test_fine_labels_teach_linear_nothing(tile_set, tmp_path):
    """It is fitted to coarse labels, which this set has in files of their own."""
    blind = relisted(tile_set, tmp_path / "blind", lambda rows: [{**row, "high": ""} for row in rows if row["low"]])
    fits = [linear(root, (), "none", torch.device("cpu")).segmenter for root in (tile_set, blind)]
    assert torch.equal(*(fit.weight for fit in fits)) and torch.equal(*(fit.bias for fit in fits))


def test_regions_limit_what_linear_learns_from(tile_set):
    device, region = torch.device("cpu"), TileSet(tile_set, "train").rows[0]["region"]
    whole, part = (linear(tile_set, regions, "none", device) for regions in ((), (region,)))
    assert not torch.equal(whole.segmenter.weight, part.segmenter.weight)
    assert not torch.equal(whole.mean, part.mean)


def test_255_is_a_low_code_where_the_merge_gives_it_a_class(tile_set, tmp_path):
    tiles = TileSet(shutil.copytree(tile_set, tmp_path / "set"), "test")
    stored = tile_io.read(path := tiles.root / tiles.rows[0]["low"])
    stored.pixels[0, 0] = 255
    tile_io.write(path, stored.pixels, affine=stored.affine, system=stored.system)
    assert low_codes(tiles, 0).min() == NO_CODE
    tiles.description.taxonomy.low[255] = 0
    assert low_codes(tiles, 0).max() == 255


def test_an_encoder_is_a_seed_or_a_file_or_none(tmp_path, tile_set, capsys):
    assert open_encoder("none", 3) is None
    first, again, other = (open_encoder(seed, 3).conv1.weight for seed in ("0", "0", "1"))
    assert torch.equal(first, again) and not torch.equal(first, other)
    torch.save(ResNet18(4, 6).state_dict(), tmp_path / "resnet18.pt")
    encoder = open_encoder(str(tmp_path / "resnet18.pt"), 4)
    kept = torch.load(tmp_path / "resnet18.pt", weights_only=True)
    assert encoder.channels[0] == 6 and torch.equal(encoder.conv1.weight, kept["conv1.weight"])
    words = "evaluate.py", "--linear", "--data", tile_set, "--linear-encoder"
    assert "x.pt: no such file; name a resnet18.pt" in error_of(*words, "x.pt")
    torch.save({"conv1.weight": kept["conv1.weight"]}, tmp_path / "part.pt")
    assert open_encoder(str(tmp_path / "part.pt"), 4) and "warning: encoder starts from" in capsys.readouterr().out
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pt")
    assert "holds no weight of a ResNet-18" in error_of(*words, tmp_path / "other.pt")
