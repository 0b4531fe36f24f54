"""Who imports whom: scripts on top, models and data apart, all on runtime, and nothing imports a script."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = {"train_seg", "train_mae", "evaluate", "predict", "reproduce", "bench", "export"}
LIBRARIES = {"torch", "torchvision", "numpy", "PIL", "tifffile", "tqdm", "yaml"}
FOLDERS = "models", "data", "maps", "beyond", "runtime"
FILES = [*sorted(ROOT.glob("*.py")), *(p for folder in FOLDERS for p in sorted((ROOT / folder).rglob("*.py")))]
GROUND = {"errors", "files", "workers", "command", "signals", "content"}  # what works without torch
TENSORS = {"samples", "transforms", "loading", "unlabelled"}  # of data: what makes tensors


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            if node.module == "runtime":
                yield from (f"runtime.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path):
    place = path.relative_to(ROOT).parts[0].removesuffix(".py")
    for name in imported(path):
        top = name.split(".")[0]
        assert top not in SCRIPTS, f"{path.name} imports the script {top}"
        if place in ("models", "data", "runtime"):
            apart = {"models", "data", "maps", "beyond", "figures", "tables", "trained", "metrics", "losses"} - {place}
            assert top not in apart, f"{place}/{path.name} imports {name}"
            assert top != "config" or path.name == "__init__.py" and place == "models"
        if place in ("losses", "metrics", "figures", "config"):
            assert top not in {"models", "data", "maps"}, f"{path.name} imports {name}"
        if place == "data" and path.stem not in TENSORS or place == "runtime" and path.stem in GROUND:
            assert top != "torch", f"{path.name} is to work without torch"
            assert top != "runtime" or name == "runtime" or name.split(".")[1] in GROUND, f"{name} needs torch"


def test_only_the_run_time_packages_are_imported():
    import sys

    own = {p.stem for p in ROOT.glob("*.py")} | {*FOLDERS}
    for path in FILES:
        for name in imported(path):
            top = name.split(".")[0]
            optional = {"curves": {"matplotlib"}, "export": {"onnx", "onnxruntime"}, "rasters": {"rasterio"}}
            optional = optional.get(path.stem, set())
            assert top in LIBRARIES | own | optional | set(sys.stdlib_module_names), f"{path.name} imports {name}"
