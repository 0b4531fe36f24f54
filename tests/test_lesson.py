"""docs/lesson.ipynb runs from top to bottom on a demo, here a tiny one."""

import re

import pytest
from commands import ROOT
from made_runs import trained

FAST = ["train.epochs=1", "model.width=4", "train.batch_size=16"]


@pytest.fixture(scope="module")
def notebook():
    why = "the notebook needs nbclient and ipykernel (requirements-dev.txt)"
    nbformat = pytest.importorskip("nbformat", reason=why)
    return nbformat.read(ROOT / "docs" / "lesson.ipynb", as_version=4)


def test_the_notebook_runs_on_what_the_demo_leaves(notebook, tile_set, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="jupyter's client is not installed (requirements-dev.txt)")
    pytest.importorskip("ipykernel", reason="jupyter's kernel is not installed (requirements-dev.txt)")
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (requirements-dev.txt)")
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


def test_the_notebook_is_short_and_carries_no_large_outputs(notebook):
    assert 10 <= len(notebook.cells) <= 20
    assert (ROOT / "docs" / "lesson.ipynb").stat().st_size < 50_000
