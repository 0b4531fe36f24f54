"""Files are those of before by their content; their times spare reading, and no more."""

import os

import pytest
from opened import opened

from runtime import content
from runtime.errors import Refused


def files(folder):
    return [(path.name, path, content.WHOLE) for path in sorted(folder.iterdir())]


@pytest.fixture
def tiles(tmp_path):
    (tmp_path / "set").mkdir()
    for name in "ab":
        (tmp_path / "set" / name).write_bytes(name.encode() * 100)
    return tmp_path / "set"


def swap(tiles):
    a, b = (tiles / name for name in "ab")
    a.rename(tiles / "c")
    b.rename(a)
    (tiles / "c").rename(b)


def test_all_of_a_label_counts_and_of_more_the_head_the_tail_and_the_size(tmp_path):
    path, seen = tmp_path / "a", set()
    size = 5 * content.PIECE
    for place, byte in ((0, 0), (0, 1), (size - 1, 1), (size // 2, 1)):
        path.write_bytes(bytes(place) + bytes([byte]) + bytes(size - place - 1))
        seen.add((content.checksum(path), content.checksum(path, content.EDGES)))
    assert len({whole for whole, _ in seen}) == 4 and len({edges for _, edges in seen}) == 3
    path.write_bytes(bytes(size + 1))
    assert content.checksum(path, content.EDGES) not in {edges for _, edges in seen}


def test_files_whose_times_have_not_changed_are_not_read(tiles, monkeypatch):
    before = content.record(files(tiles))
    monkeypatch.setattr(content, "checksum", None)
    assert content.record(files(tiles), before) == before
    os.utime(tiles / "a", (1, 1))
    with pytest.raises(TypeError):
        content.record(files(tiles), before)


def test_of_a_large_set_some_are_read_and_the_sizes_of_all_count(tiles, monkeypatch):
    monkeypatch.setattr(content, "MOST_FILES", 1)
    before = content.record(files(tiles))
    (tiles / "b").write_bytes(b"c" * 100)
    assert content.record(files(tiles))["content"] == before["content"]
    (tiles / "b").write_bytes(b"c" * 101)
    assert content.record(files(tiles))["content"] != before["content"]


@pytest.mark.parametrize("change", ["swapped", "altered", "copied", "none kept"])
def test_a_run_goes_on_with_a_copy_of_its_files_and_not_with_others(tiles, tmp_path, change):
    run = opened(tmp_path, files={"labels": files(tiles)})
    if change == "none kept":
        del run.about["files"]
    run.save("last.pt", {})
    if change in ("swapped", "none kept"):
        swap(tiles)
    elif change == "altered":
        (tiles / "b").write_bytes(b"c" * 100)
    else:
        tiles = tiles.rename(tmp_path / "elsewhere")
        os.utime(tiles / "a", (1, 1))
    if change in ("copied", "none kept"):
        opened(tmp_path, files={"labels": files(tiles)}).save("last.pt", {})
        swap(tiles)  # what was kept anew holds from here on
    with pytest.raises(Refused, match="its labels are others than those that the run in .* began with .changed last"):
        opened(tmp_path, files={"labels": files(tiles)})


def test_images_may_be_mended_on_the_way_and_a_line_says_so(tiles, tmp_path, capsys):
    opened(tmp_path, files={"images": files(tiles)}).save("last.pt", {})
    (tiles / "b").write_bytes(b"c" * 100)
    opened(tmp_path, files={"images": files(tiles)})
    assert f"its images are others than those that the run in {tmp_path}" in capsys.readouterr().out


def test_a_change_whose_time_was_put_back_is_noticed(tiles):
    before = content.record(files(tiles))
    times = os.stat(tiles / "a").st_atime_ns, os.stat(tiles / "a").st_mtime_ns
    (tiles / "a").write_bytes(b"x" * 100)
    os.utime(tiles / "a", ns=times)
    assert content.record(files(tiles), before)["content"] != before["content"]
