"""Who imports whom: scripts and tools on top, then maps, reports and beyond, then trained, then data, models, losses,
metrics and config, and runtime below. Nothing imports a script, there is no circle, and nothing grows too long."""

import ast
import graphlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LIBRARIES = {"torch", "torchvision", "numpy", "PIL", "tifffile", "tqdm", "yaml"}
EXTRAS = {"data/rasters.py": {"rasterio"}, "reports/curves.py": {"matplotlib"},
          "tools/export.py": {"onnx"}, "tools/bench.py": {"segmentation_models_pytorch"}}  # fmt: skip
SCRIPTS = {"train_seg", "train_mae", "evaluate", "predict", "reproduce"}
LAYERS = [SCRIPTS | {"tools"}, {"supervision", "maps"}, {"reports", "beyond"}, {"trained"},
          {"data", "models", "losses", "metrics", "config"}, {"runtime"}]  # fmt: skip
DEPTH = {name: depth for depth, layer in enumerate(LAYERS) for name in layer}
FOLDERS = "models", "data", "maps", "beyond", "reports", "tools", "runtime"
FILES = [*sorted(ROOT.glob("*.py")), *(p for folder in FOLDERS for p in sorted((ROOT / folder).rglob("*.py")))]
WITH_TORCH = {"samples", "transforms", "loading", "unlabelled"}  # of data: what makes tensors
LONG_MAINS = {"train_seg.py", "train_mae.py"}  # the story of a training run, top to bottom
files = pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))


def imported(path, tree=None):
    """Names as they are imported, `from data import tile_io` as data.tile_io."""
    for node in ast.walk(tree or ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            of = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if file_of(name) else node.module for name in of)


def file_of(name):
    """The file of a module of this project; None for others."""
    path = ROOT / name.replace(".", "/")
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)


def room(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@files
def test_imports_go_one_way_and_to_the_run_time_packages_alone(path):
    own, extras = room(path), EXTRAS.get(str(path.relative_to(ROOT)), set())
    for name in imported(path):
        top = name.split(".")[0]
        if top in DEPTH and top != own:
            assert DEPTH[top] > DEPTH[own], f"{own}: {path.name} imports {name}"
        assert top in LIBRARIES | DEPTH.keys() | extras | set(sys.stdlib_module_names), f"{path.name} imports {name}"
    if own == "data" and path.stem not in WITH_TORCH:
        assert "torch" not in {name.split(".")[0] for name in imported(path)}, f"{path.name} is to work without torch"
    if "prepare" in path.relative_to(ROOT).parts:
        assert not any(name.startswith("data.synthetic") for name in imported(path))


def test_rasterio_is_imported_inside_functions():
    tree = ast.parse((ROOT / "data" / "rasters.py").read_text())
    outside = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert "rasterio" not in {name.split(".")[0] for node in outside for name in imported(None, node)}


def test_every_file_has_its_place_in_the_order_and_none_imports_itself_by_way_of_others():
    assert {room(path) for path in FILES} == DEPTH.keys()
    graph = {path: {file_of(name) for name in imported(path)} - {None, path} for path in FILES}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError


@files
def test_no_function_or_file_is_too_long(path):
    text = path.read_text()
    assert text.count("\n") <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            told = path.name in LONG_MAINS and node.name == "main"
            assert told or node.end_lineno - node.lineno < 80, f"{path.name}: {node.name}"


def test_one_name_means_one_thing():
    seen = {}
    for path in FILES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name not in ("main", "parse", "validate"):
                seen.setdefault(node.name, []).append(path.name)
    assert not {name: places for name, places in seen.items() if len(places) > 1}
