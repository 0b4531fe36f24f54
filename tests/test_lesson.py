"""docs/lesson.ipynb runs from top to bottom on a demo, here a tiny one."""

import re

import pytest
from commands import ROOT
from made_runs import trained

FAST = ["train.epochs=1", "model.width=4", "train.batch_size=16"]


def test_the_notebook_runs_on_what_the_demo_leaves_and_carries_no_large_outputs(tile_set, tmp_path, monkeypatch):
    why, path = "the notebook needs it (requirements-dev.txt)", ROOT / "docs" / "lesson.ipynb"
    parts = "nbformat", "nbclient", "ipykernel", "matplotlib"
    nbformat, nbclient, *_ = (pytest.importorskip(name, reason=why) for name in parts)
    notebook = nbformat.read(path, as_version=4)
    assert 10 <= len(notebook.cells) <= 20 and path.stat().st_size < 50_000
    demo = tmp_path / "demo"
    demo.mkdir()
    (demo / "tiles").symlink_to(tile_set)
    for row in ("low", "agg", "agg_app", "high"):
        words = [f"data.root={demo / 'tiles'}", f"run.dir={demo / row}-0", *FAST]
        trained(f"configs/demo/{row}.yaml", *words)
    setup = notebook.cells[1]
    for name, place in (("DEMO", demo), ("OUT", tmp_path / "out")):
        line = rf'^{name} = Path\(".*"\)$'
        setup.source, found = re.subn(line, f"{name} = Path({str(place)!r})", setup.source, flags=re.MULTILINE)
        assert found == 1, name
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    place = {"metadata": {"path": str(ROOT / "docs")}}
    nbclient.NotebookClient(notebook, timeout=600, startup_timeout=300, resources=place).execute()
    pictures = {path.stem for path in (tmp_path / "out").glob("*.png")}
    assert pictures == {"tiles", "blur", "null_space", "index_map", "rows"}
    said = str(notebook.cells[-2].outputs)
    assert all(row in said for row in ("Oracle", "Low", "Agg+App", "High", "mean_probs"))
