"""What README and docs name is there: files, functions, pictures, and the commands' files, options and settings."""

import ast
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from random_checkpoint import save_random_checkpoint

from config import PretrainConfig, SegmenterConfig
from data.taxonomy import load_colors, load_taxonomy
from runtime.settings import load_config

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
KINDS = {"train_seg.py": SegmenterConfig, "train_mae.py": PretrainConfig}
page = pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)


def names_in(path):
    """Functions, classes, methods as Class.method, and constants of a file."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
        if isinstance(node, ast.Assign):
            targets = [t for target in node.targets for t in getattr(target, "elts", [target])]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def commands_in(text):
    """The words of each command, in code blocks and in sentences, without `python`."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    for line in [line for block in blocks for line in block.splitlines()] + spelt(text):
        if re.match(r"(\.venv/bin/)?python\d? ", line):
            yield shlex.split(line, comments=True)[1:]


def spelt(text):
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))


@page
def test_every_function_named_with_its_file_is_there(page):
    for word in spelt(page.read_text()):
        if match := re.fullmatch(r"([\w/]+\.py): ([\w., ]+)", word):
            file, names = match.groups()
            missing = set(names.split(", ")) - names_in(ROOT / file)
            assert not missing, f"{page.name}: {file} has no {missing}"


@page
def test_every_file_named_is_there(page):
    for word in spelt(page.read_text()):
        file = word.split(": ")[0]
        if re.fullmatch(r"[\w./]*\w\.(py|md|png)|configs/\S*\.yaml|[\w/]+/", file) and not file.startswith("runs/"):
            places = [ROOT / file, ROOT / "docs" / file, ROOT / "tests" / file]
            made = file.startswith("figures/") or any(c in file for c in "<*")  # in a run's folder
            assert made or any(place.exists() for place in places), f"{page.name}: {word}"


def test_no_file_cites_a_document_that_is_not_there():
    cited = re.compile(r"\b(DESIGN|STYLE|FIELD)\b|\b(?!LICENSE|README)[A-Z]{4,}\.md\b")
    here = Path(__file__)
    folders = "", "beyond", "configs", "data", "docs", "maps", "models", "reports", "runtime", "tests", "tools"
    for path in [p for folder in folders
                 for p in (ROOT / folder).glob("**/*" if folder else "*")]:
        if path.suffix in (".py", ".md", ".yaml", ".toml", ".txt") and path != here:
            assert not (found := cited.search(path.read_text())), f"{path}: {found[0]}"


@page
def test_every_link_and_picture_leads_somewhere(page):
    for link in re.findall(r"\]\((?!https://)([^)#]+)\)", page.read_text()):
        assert (page.parent / link).exists(), f"{page.name}: {link}"


@page
def test_every_command_names_files_options_and_settings_that_are_there(page):
    for script, *words in commands_in(page.read_text()):
        if script == "-m":
            module, words = words[0], words[1:]
            if module == "venv":
                continue
            package = module.replace(".", "/")
            script = f"{package}/__main__.py" if (ROOT / package).is_dir() else f"{package}.py"
        assert (ROOT / script).is_file(), f"{page.name}: {script}"
        source = (ROOT / script).read_text()
        for option in (word.split("=")[0] for word in words if word.startswith("--")):
            known = option == "--help" or f'"{option}"' in source
            assert known, f"{page.name}: {script} has no {option}"
        if script in KINDS and words and (ROOT / words[0]).is_file():
            load_config(KINDS[script], ROOT / words[0], words[1:])
        for word in words:
            if word.startswith("configs/") and "ROW" not in word:
                assert (ROOT / word).exists(), f"{page.name}: {word}"


def test_the_readmes_lines_of_python_run(tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    checkpoint, photograph = re.findall(r'"([^"]+\.(?:pt|jpg))"', code)
    for path in (tmp_path / checkpoint, tmp_path / photograph):
        path.parent.mkdir(parents=True)
    save_random_checkpoint(tmp_path / checkpoint)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (70, 90, 3), np.uint8)).save(tmp_path / photograph)
    monkeypatch.chdir(tmp_path)
    values = {}
    exec(code, values)
    said = capsys.readouterr().out
    assert values["probs"].shape == (4, 70, 90) and values["probs"].sum(dim=0).allclose(torch.ones(70, 90))
    assert "water" in said and said.count("%") == 4


def test_the_readmes_taxonomy_is_read(tmp_path):
    (text,) = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    (tmp_path / "taxonomy.yaml").write_text(text)
    assert load_colors(tmp_path / "taxonomy.yaml")["high"] and len(load_taxonomy(tmp_path / "taxonomy.yaml").names) == 4


def test_the_readme_is_read_in_one_sitting_and_pictures_are_small():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200
    assert max(path.stat().st_size for path in (ROOT / "docs").glob("*.png")) <= 300 * 1024


def test_the_lessons_four_maps_differ_and_eq_1_cannot_tell_them_apart():
    pytest.importorskip("matplotlib")
    from docs.plots import cell_sums, rearranged

    logits, index = torch.randn(4, 64, generator=torch.Generator().manual_seed(0)).double(), torch.arange(64) // 16
    maps = rearranged(logits, index)
    assert len({tuple(m.argmax(dim=0).tolist()) for m in maps}) == 4
    for other in maps[1:]:
        torch.testing.assert_close(cell_sums(other, index), cell_sums(logits, index))
