import json

import pytest
import torch
from commands import error_of, run_script
from made_runs import trained

from tools import probe


@pytest.fixture(scope="module")
def trained_encoder(tile_set, tmp_path_factory):
    """The ResNet-18 of a short run of High."""
    folder = tmp_path_factory.mktemp("encoder")
    words = [f"data.root={tile_set}", f"run.dir={folder}", "model.width=8", "data.workers=0", "train.epochs=15"]
    words += ["train.batch_size=10", "train.average=0", "train.precision=off"]
    trained("configs/demo/high.yaml", *words)
    state = torch.load(folder / "best.pt", weights_only=True)["segmenter"]
    start = "encoder."
    torch.save({k[len(start) :]: v for k, v in state.items() if k.startswith(start)}, folder / "resnet18.pt")
    return folder / "resnet18.pt"


def test_a_trained_encoder_is_told_from_random_ones(trained_encoder, tile_set, tmp_path):
    words = trained_encoder, "--data", tile_set, "--pixels", 100, "--random", 3, "--out", tmp_path / "probe.json"
    printed = run_script("-m", "tools.probe", *words, "--device", "cpu")
    rows = json.loads((tmp_path / "probe.json").read_text())["rows"]
    trained, chance = rows[str(trained_encoder)]["mean"], rows["random, width 8"]
    assert list(trained) == list(chance["mean"]) == ["bands", "stem", "layer1", "layer2", "layer3", "layer4", "all"]
    assert trained["bands"] == pytest.approx(chance["mean"]["bands"]) and chance["deviation"]["bands"] < 1e-9
    for stage in ("layer2", "layer3"):
        assert trained[stage] > chance["mean"][stage] + 2 * chance["deviation"][stage]
        assert f"{100 * trained[stage]:.2f}" in printed


def test_few_labelled_tiles_are_among_more_and_what_cannot_be_probed_is_one_line(tile_set, capsys):
    words = ["0", "--data", str(tile_set), "--pixels", "20", "--random", "0", "--device", "cpu"]
    two, three = (probe.main(probe.parse([*words, "--tiles", n]))["0"]["mean"]["all"] for n in ("2", "3"))
    assert "fine labels of 2 tiles" in capsys.readouterr().out and two != three
    for word, said in (("x.pt", "no such file; name a resnet18.pt"), ("none", "name a resnet18.pt or a seed")):
        assert said in error_of("-m", "tools.probe", word, "--data", tile_set)
