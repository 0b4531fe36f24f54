import json
import sys

import pytest
from opened import opened
from PIL import Image

from reports.curves import save_curve, save_run_curves
from runtime.errors import Refused

SCORES = {"accuracy": 0.7, "macro_f1": 0.5, "miou": 0.4}
GAME = {"auc": 0.6, "ragged_made": 0.01, "ragged_real": 0.02}
GRADIENTS = {"gradient_region": 0.1, "gradient_adversary": 0.0}


def write_log(path, train, validation):
    records = []
    for step in (1, 2):
        records.append({"step": step, "kind": "train", "loss": 1.0 / step, **train})
        records.append({"step": step, "kind": "validation", **validation})
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def panels_drawn(tmp_path, monkeypatch, *records):
    """{title: names of its lines} of the picture of such a log."""
    figure = pytest.importorskip("matplotlib.figure")
    drawn, savefig = {}, figure.Figure.savefig

    def looking(self, *args, **options):
        drawn.update({ax.get_title(): [line.get_label() for line in ax.lines] for ax in self.axes})
        savefig(self, *args, **options)

    monkeypatch.setattr(figure.Figure, "savefig", looking)
    save_run_curves(write_log(tmp_path / "log.jsonl", *records), tmp_path / "figures" / "curves.png")
    assert max(Image.open(tmp_path / "figures" / "curves.png").size) <= 1200
    return drawn


def test_a_row_shows_loss_and_scores_with_an_adversary_the_game_too_and_pretraining_both_losses(tmp_path, monkeypatch):
    drawn = panels_drawn(tmp_path, monkeypatch, GRADIENTS, {**SCORES, "game": GAME})
    assert len(drawn) == 5 and ["predictions", "exemplars"] in drawn.values() and ["AUC", "guessing"] in drawn.values()
    drawn = panels_drawn(tmp_path, monkeypatch, {}, SCORES)
    assert list(drawn.values()) == [["training"], ["accuracy", "macro F1", "mIoU"]]
    drawn = panels_drawn(tmp_path, monkeypatch, {}, {"loss": 0.9})
    assert drawn == {"Loss": ["training", "validation"]}


def test_without_matplotlib_a_run_has_no_picture_and_a_figure_says_what_it_needs(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    save_run_curves(write_log(tmp_path / "log.jsonl", {}, SCORES), tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists() and capsys.readouterr() == ("", "")
    with pytest.raises(Refused, match="pip install matplotlib"):
        save_curve(tmp_path / "x.png", [1], [[1.0]], 1.0, ("K", "F1"))


def test_a_run_does_not_stop_for_a_picture_that_cannot_be_drawn(tmp_path, capsys):
    run = opened(tmp_path)
    run.path.write_text("no record\n")
    run.draw(save_run_curves)
    assert "curves.png: not drawn: " in capsys.readouterr().out
