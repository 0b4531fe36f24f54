"""What README and docs name is there: files, functions, links, pictures, scores, and commands that their programs take.
Pages stay plain: sentences are short, lines fit, README and results.md are within their bounds."""

import argparse
import ast
import importlib
import json
import re
import shlex
import statistics
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from random_checkpoint import save_random_checkpoint

from config import PretrainConfig, SegmenterConfig
from data.taxonomy import load_taxonomy
from reports.tables import PAPER
from runtime.settings import load_config

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
RESULTS, LESSON, DIARY = (ROOT / "docs" / f"{name}.md" for name in ("results", "lesson", "diary"))
KINDS = {"train_seg.py": SegmenterConfig, "train_mae.py": PretrainConfig}
page = pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)

MOST_SIGNS, MEAN_WORDS_A_SENTENCE = 120, 18  # of a line of prose; of all pages but the diary
MOST_WORDS_OF_RESULTS = 3000
# README is read in five minutes.
MOST_LINES, MOST_WORDS, MOST_COLUMNS = 125, 1300, 6
MOST_WORDS_A_SENTENCE_OF_README, MEAN_WORDS_A_SENTENCE_OF_README = 30, 16


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
    """The words of each command, in code blocks and in sentences, without `python` or `torchrun` and its options."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()] + spelt(text)
    for line in lines:
        for part in re.split(r"&& |; |\bdo ", line):
            part = part.strip().removesuffix("'")  # Slurm's line has it in quotes
            if re.match(r"(\.venv/bin/)?python\d? ", part):
                yield shlex.split(part.replace("$r", "0"), comments=True)[1:]
            if "torchrun " in part:
                words = shlex.split(part[part.index("torchrun ") :], comments=True)
                scripts = [i for i, word in enumerate(words) if word.endswith(".py")]
                if scripts:
                    yield words[scripts[0] :]


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
    cited = re.compile(r"\b(DESIGN|STYLE|FIELD)\b|\b(?!CHANGELOG|CONTRIBUTING|README)[A-Z]{4,}\.md\b")
    here = Path(__file__)
    folders = "", "beyond", "configs", "data", "docs", "maps", "models", "reports", "runtime", "tests", "tools"
    for path in (p for folder in folders for p in (ROOT / folder).glob("**/*" if folder else "*")):
        if path.suffix in (".py", ".md", ".yaml", ".toml", ".txt") and path != here:
            assert not (found := cited.search(path.read_text())), f"{path}: {found[0]}"


def anchors_in(path):
    """What `#...` may say of a page: its headings as GitHub names them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@page
def test_every_link_and_picture_leads_somewhere(page):
    for link, anchor in re.findall(r"\]\((?!https://)([^)#]*)#?([^)]*)\)", page.read_text()):
        target = page.parent / link if link else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors_in(target), f"{page.name}: {link}#{anchor}"


class Parsed(Exception):
    """A program's arguments are all known to it."""


def parse(script, words, monkeypatch):
    """Start a program with these words, up to where its parser is through."""

    def stops(parse_args):
        def stop(parser, words=None, namespace=None):
            parse_args(parser, words, namespace)
            raise Parsed

        return stop

    program = importlib.import_module(script.removesuffix(".py").replace("/", "."))
    start = next(getattr(program, name) for name in ("parse", "parsed", "main") if hasattr(program, name))
    with monkeypatch.context() as patch:
        for name in ("parse_args", "parse_intermixed_args"):
            patch.setattr(argparse.ArgumentParser, name, stops(getattr(argparse.ArgumentParser, name)))
        patch.setattr(sys, "argv", [script, *words])
        with pytest.raises(Parsed):
            start()


@page
def test_every_command_is_one_that_its_program_takes(page, monkeypatch, capsys):
    for script, *words in commands_in(page.read_text()):
        if script == "-m":
            module, words = words[0], words[1:]
            if module in ("venv", "pytest"):
                continue
            package = module.replace(".", "/")
            script = f"{package}/__main__.py" if (ROOT / package).is_dir() else f"{package}.py"
        assert (ROOT / script).is_file(), f"{page.name}: {script}"
        for word in words:
            if word.startswith("configs/") and "ROW" not in word:
                assert (ROOT / word).exists(), f"{page.name}: {word}"
        if script in KINDS:
            if words and (ROOT / words[0]).is_file():
                load_config(KINDS[script], ROOT / words[0], words[1:])
        elif "--help" not in words and words and not script.startswith(("docs/", "tests/")):
            try:
                parse(script, words, monkeypatch)
            except SystemExit:
                pytest.fail(f"{page.name}: {script} {' '.join(words)}: {capsys.readouterr().err}")
        else:
            for option in (word.split("=")[0] for word in words if word.startswith("--")):
                known = option == "--help" or f'"{option}"' in (ROOT / script).read_text()
                assert known, f"{page.name}: {script} has no {option}"


def test_the_lines_of_python_for_own_images_run(tmp_path, monkeypatch, capsys):
    text = (ROOT / "docs" / "own_images.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
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


def test_the_lines_of_python_for_polygons_run(tmp_path, monkeypatch):
    rasterio = pytest.importorskip("rasterio", reason="scenes need rasterio (requirements-scenes.txt)")
    (code,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "gis.md").read_text(), re.DOTALL | re.MULTILINE)
    classes = np.ones((60, 80), np.uint8)
    classes[20:40, 30:60], classes[5:10, 5:10], classes[:, 70:] = 3, 0, 255  # a large patch, a small one, no data
    place = {"crs": "EPSG:26917", "transform": rasterio.Affine(0.6, 0, 334000, 0, -0.6, 4305000)}
    facts = {"height": 60, "width": 80, "count": 1, "dtype": "uint8", "nodata": 255}
    with rasterio.open(tmp_path / "map.tif", "w", "GTiff", **facts, **place) as file:
        file.write(classes, 1)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    found = json.loads((tmp_path / "map.geojson").read_text())
    assert sorted(feature["properties"]["class"] for feature in found["features"]) == [1, 3]
    assert found["crs"]["properties"]["name"].endswith("EPSG::26917")
    points = np.array([p for f in found["features"] for ring in f["geometry"]["coordinates"] for p in ring])
    assert np.allclose([points.min(axis=0), points.max(axis=0)], [(334000, 4304964), (334042, 4305000)])


def test_the_taxonomy_of_own_images_is_read(tmp_path):
    text = (ROOT / "docs" / "own_images.md").read_text()
    (text,) = re.findall(r"^```yaml\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    (tmp_path / "taxonomy.yaml").write_text(text)
    taxonomy = load_taxonomy(tmp_path / "taxonomy.yaml")
    assert taxonomy.masks["high"] and len(taxonomy.names) == 4


def prose_in(text):
    """A page without its code blocks, tables, headings and pictures."""
    return re.sub(r"^```.*?^```|^[|#!].*?$", "", text, flags=re.DOTALL | re.MULTILINE)


def sentences_in(text):
    """The sentences of a page's prose: a link is its words, and a point of a list begins a sentence."""
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", prose_in(text)).replace("*", "")
    text = re.sub(r"\b(Sec|Fig|Figs|Eq|ref|al)\. ", r"\1._", text)
    blocks = re.split(r"\n\s*\n|^ *(?:-|\d\.) ", text, flags=re.MULTILINE)
    return [s for block in blocks for s in re.split(r"(?<=[.!?])\s+", " ".join(block.split())) if re.search(r"\w", s)]


def words_in(text):
    return [word for word in text.split() if re.search(r"\w", word)]


def test_sentences_are_told_apart():
    code = "```\nno. no.\n```\n| no. | no. |\n"
    text = f"# No\n\nOne [link](a.md#b) here. Two\nlines?\n\n{code}\n- **Three.** Four\n  - five, Fig. 5: `x.py`\n"
    assert sentences_in(text) == ["One link here.", "Two lines?", "Three.", "Four", "five, Fig._5: `x.py`"]


@page
def test_sentences_are_short_and_lines_fit(page):
    text = page.read_text()
    mean = statistics.mean(len(sentence.split()) for sentence in sentences_in(text))
    assert mean <= MEAN_WORDS_A_SENTENCE or page == DIARY, f"{page.name}: {mean:.1f} words a sentence"
    assert not [line for line in prose_in(text).splitlines() if len(line) > MOST_SIGNS]


def test_the_readme_is_read_in_five_minutes():
    text = README.read_text()
    lines = text.splitlines()
    assert len(lines) <= MOST_LINES and len(text.split()) <= MOST_WORDS
    assert not [line for line in lines if len(line) > MOST_SIGNS]
    assert not [line for line in lines if line.startswith("|") and line.count("|") - 1 > MOST_COLUMNS]
    lengths = {sentence: len(sentence.split()) for sentence in sentences_in(text)}
    assert not [sentence for sentence, words in lengths.items() if words > MOST_WORDS_A_SENTENCE_OF_README]
    assert statistics.mean(lengths.values()) <= MEAN_WORDS_A_SENTENCE_OF_README


def test_the_results_are_short():
    assert len(words_in(RESULTS.read_text())) <= MOST_WORDS_OF_RESULTS


def rows_in(text, heading):
    """{row: the cells beside it} of the table whose heading begins so."""
    lines = text[text.index(f"| {heading}") :].split("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row: cells for row, *cells in rows}


def test_the_readmes_scores_stand_in_the_results():
    readme = rows_in(README.read_text(), "test mIoU")
    clean, nlcd = (rows_in(RESULTS.read_text(), heading) for heading in ("n = 32 |", "n = 50 |"))
    assert len(readme) == 8
    for row, (paper, *ours) in readme.items():
        assert float(paper) == pytest.approx(PAPER[row][2], abs=0.051) if row in PAPER else not paper
        assert ours == [clean[row][2], nlcd[row][2]], row


def test_the_lessons_scores_stand_in_the_results():
    numbers = re.compile(r"\b\d+\.\d+\b")
    tables = "\n".join(line for line in LESSON.read_text().splitlines() if line.startswith("|"))
    said = set(numbers.findall(tables))
    assert len(said) > 50 and said <= set(numbers.findall(RESULTS.read_text()))


def test_the_paper_is_cited_alike():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())["preferred-citation"]
    text = README.read_text()
    assert cited["title"] in text and cited["doi"] in text and cited["url"] in text


def test_pictures_are_small():
    assert max(path.stat().st_size for path in (ROOT / "docs").glob("*.png")) <= 300 * 1024


def test_the_lessons_four_maps_differ_and_eq_1_cannot_tell_them_apart():
    pytest.importorskip("matplotlib")
    from docs.plots import cell_sums, rearranged

    logits, index = torch.randn(4, 64, generator=torch.Generator().manual_seed(0)).double(), torch.arange(64) // 16
    maps = rearranged(logits, index)
    assert len({tuple(m.argmax(dim=0).tolist()) for m in maps}) == 4
    for other in maps[1:]:
        torch.testing.assert_close(cell_sums(other, index), cell_sums(logits, index))
