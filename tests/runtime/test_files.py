"""YAML from strangers: read whole and plain, or refused at once in one line. What a kill leaves is cleared away."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from runtime.errors import Refused
from runtime.files import MACHINE, read_yaml, remove_leftovers


def written(tmp_path, text):
    path = tmp_path / "a.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("start", ["", "0x", "1:"])
def test_an_integer_of_five_megabytes_is_refused_in_under_a_second(tmp_path, start):
    path = written(tmp_path, "a: " + start + "1" * 5_000_000)
    began = time.process_time()
    with pytest.raises(Refused, match="more than 1,000,000 bytes"):
        read_yaml(path)
    assert time.process_time() - began < 1


@pytest.mark.parametrize("number", ["9" * 20_000, "0x" + "f" * 20_000, "0b" + "1" * 20_000, "1" + ":1" * 10_000,
                                    "1" + ":1" * 10_000 + ".5"])  # fmt: skip
def test_shorter_numbers_without_end_are_refused_before_python_counts_them(tmp_path, number):
    with pytest.raises(Refused, match=r"a.yaml: not YAML: line 2: a number of \d\d,\d{3} digits$"):
        read_yaml(written(tmp_path, f"b: 1\na: {number}"))


@pytest.mark.parametrize("text, key", [("{1: a, 0x1: b}", "0x1"), ("{1: a, 1.0: b}", "1.0"), ("{a: {b: 1, b: 1}}", "b"),
                                       ("{yes: 1, true: 2}", "true"), ("b: [\n{a: 1, 'a': 2}]", "a")])  # fmt: skip
def test_one_key_under_two_spellings_is_refused(tmp_path, text, key):
    with pytest.raises(Refused, match=f"a.yaml: not YAML: line [12]: key {key} stands twice$"):
        read_yaml(written(tmp_path, text))


def test_a_color_that_lacks_its_quotes_is_told_so(tmp_path):
    with pytest.raises(Refused, match='a # opens a comment, so write colours as "#RRGGBB"$'):
        read_yaml(written(tmp_path, 'colors: {"#E2A929": water, #6EC1E4: road}'))


def test_keys_of_a_merge_may_be_given_anew(tmp_path):
    assert read_yaml(written(tmp_path, "x: &x {a: 1, b: 1}\ny: {<<: *x, a: 2}"))["y"] == {"a": 2, "b": 1}


@pytest.mark.parametrize("text", ["a: !!bool x", "a: !!timestamp x", "a: !!int ''", "a: !!float x", "a: 0x_",
                                  "{[1]: 2}", "a: 2020-99-99", "a: \0", b"a: \xff", "[" * 5000,
                                  "a: !!python/name:os.system",
                                  "? !!timestamp x\n: 1", "a: !!map [1]", "a: !!omap [1]"])  # fmt: skip
def test_whatever_is_wrong_is_one_line(tmp_path, text):
    with pytest.raises(Refused) as caught:
        read_yaml(written(tmp_path, text))
    assert "a.yaml: not YAML: " in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_plain_is_read(tmp_path):
    assert read_yaml(written(tmp_path, "")) == {}
    assert read_yaml(written(tmp_path, "\ufeffa: [1, 0x10, 1.5, 1e-4, yes, {b: }]")) == {
        "a": [1, 16, 1.5, "1e-4", True, {"b": None}]
    }


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks Linux")
def test_what_a_killed_process_left_goes_though_its_parent_has_not_asked_after_it(tmp_path):
    killed, lives = (subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) for _ in range(2))
    left, writing = (tmp_path / f".a.tif.{MACHINE}.{process.pid}.tmp" for process in (killed, lives))
    left.touch()
    writing.touch()
    killed.kill()
    while " Z " not in Path(f"/proc/{killed.pid}/stat").read_text():
        time.sleep(0.01)
    remove_leftovers(tmp_path)
    assert not left.exists() and writing.exists()
    for process in (killed, lives):
        process.kill()
        process.communicate()
