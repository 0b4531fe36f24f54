"""Checkpoints and records: whole or not at all, whatever breaks off their writing."""

import pytest
import torch
from full_disk import no_file_above
from opened import opened

from runtime import checkpoint
from runtime.errors import Refused
from runtime.files import write_text


def test_a_disk_that_fills_leaves_every_file_of_a_run_whole(tmp_path):
    run = opened(tmp_path)
    run.log({"step": 1, "kind": "train"})
    run.save("last.pt", {})
    write_text(tmp_path / "metrics.json", "{}")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with no_file_above(len(before["log.jsonl"])):
        with pytest.raises(Refused, match=r"last.pt: could not be saved \(File too large\); the previous"):
            checkpoint.save(tmp_path / "last.pt", {"w": torch.zeros(100_000)})
        with pytest.raises(OSError, match=str(tmp_path / "metrics.json")):
            write_text(tmp_path / "metrics.json", "x" * 10_000)
        with pytest.raises(Refused, match="log.jsonl: File too large"):
            run.log({"step": 2, "kind": "train"})
        with pytest.raises(OSError, match=str(tmp_path / "config.yaml")):
            opened(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


class Malicious:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize("damage", ["cut", "pickle", "list"])
def test_what_is_no_checkpoint_is_refused_in_one_line(tmp_path, damage, capsys):
    path = tmp_path / "best.pt"
    torch.save({"pickle": {"w": Malicious()}, "list": [1, 2], "cut": {"w": torch.zeros(1000)}}[damage], path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(Refused, match="best.pt") as caught:
        checkpoint.load(path)
    assert "\n" not in str(caught.value)
    assert "executed" not in capsys.readouterr().out
