"""Checkpoints and records: whole or not at all, whatever breaks off their writing."""

import contextlib
import os
import resource
import signal

import pytest
import torch
from opened import opened

from runtime import checkpoint
from runtime.errors import Refused
from runtime.files import write_text


def test_a_checkpoint_comes_back_as_it_went(tmp_path):
    state = {"segmenter": {"w": torch.arange(3.0)}, "step": 4, "config": {"a.b": [1, "x"]}}
    checkpoint.save(tmp_path / "last.pt", state)
    back = checkpoint.load(tmp_path / "last.pt")
    assert torch.equal(back["segmenter"]["w"], state["segmenter"]["w"]) and back["step"] == 4
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


def test_a_full_disk_keeps_the_previous_checkpoint_and_says_so(tmp_path, monkeypatch):
    checkpoint.save(tmp_path / "last.pt", {"step": 1})

    def full(state, file):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(Refused, match="last.pt.*No space left.*previous checkpoint stays"):
        checkpoint.save(tmp_path / "last.pt", {"step": 2})
    assert checkpoint.load(tmp_path / "last.pt") == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_what_torch_raises_on_a_full_disk_is_one_line(tmp_path, monkeypatch):
    real_open = open
    monkeypatch.setattr("builtins.open", lambda path, mode="r", *a, **k: real_open("/dev/full", "wb"))
    with pytest.raises(Refused) as caught:
        checkpoint.save(tmp_path / "last.pt", {"w": torch.zeros(300_000)})
    assert "\n" not in str(caught.value)


@contextlib.contextmanager
def no_file_above(size):
    """The system refuses to let a file grow, as on a full disk, with another reason."""
    before, ignored = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


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


@pytest.mark.parametrize("damage", ["missing", "empty", "text", "cut", "pickle", "list"])
def test_what_is_no_checkpoint_is_refused_in_one_line(tmp_path, damage, capsys):
    path = tmp_path / "best.pt"
    if damage == "cut":
        checkpoint.save(path, {"w": torch.zeros(1000)})
        path.write_bytes(path.read_bytes()[:1500])
    elif damage == "pickle":
        torch.save({"w": Malicious()}, path)
    elif damage == "list":
        torch.save([1, 2], path)
    elif damage != "missing":
        path.write_bytes({"empty": b"", "text": b"not a checkpoint"}[damage])
    with pytest.raises(Refused, match="best.pt") as caught:
        checkpoint.load(path)
    assert "\n" not in str(caught.value)
    assert "executed" not in capsys.readouterr().out


def test_the_log_is_cut_back_to_the_checkpoints_step(tmp_path):
    run = opened(tmp_path)
    for step in (10, 20, 30):
        run.log({"step": step, "kind": "train"})
    with open(run.path, "a") as file:
        file.write('{"step": 5, "ki')  # a kill in the middle of a line
    opened(tmp_path, 20)
    assert [line[:10] for line in run.path.read_text().splitlines()] == ['{"step": 1', '{"step": 2']


def test_a_fresh_run_starts_a_fresh_log(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n')
    opened(tmp_path)
    assert (tmp_path / "log.jsonl").read_text() == ""
