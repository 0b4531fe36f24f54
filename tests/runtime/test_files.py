"""Files that are whole or absent, and YAML: read plain, or refused at once in one line."""

import pytest

from runtime.errors import Refused
from runtime.files import open_whole, read_yaml, write_text


def written(tmp_path, text):
    path = tmp_path / "a.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_what_breaks_off_leaves_the_older_file_and_nothing_else(tmp_path):
    write_text(tmp_path / "new" / "a.txt", "old")
    with pytest.raises(ZeroDivisionError), open_whole(tmp_path / "new" / "a.txt") as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert [(path.name, path.read_text()) for path in (tmp_path / "new").iterdir()] == [("a.txt", "old")]


@pytest.mark.parametrize("text, said", [
    ("{1: a, 0x1: b}", "line 1: key 1 appears twice"), ("b: [\n{a: 1, 'a': 2}]", "line 2: key a appears twice"),
    ("{a: 1", "line 1: expected"), (b"a: \xff", "can't decode"), ("[1]", "should hold a mapping, holds list"),
    ("a: !!python/name:os.system", "line 1: could not determine a constructor")])  # fmt: skip
def test_whatever_is_wrong_is_one_line(tmp_path, text, said):
    with pytest.raises(Refused, match=f"a.yaml: not YAML: .*{said}") as caught:
        read_yaml(written(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_what_is_plain_is_read(tmp_path):
    assert read_yaml(written(tmp_path, "")) == {}
    text = "\ufeffa: [1, 0x10, 1.5, 1e-4, yes, {b: }]\nx: &x {a: 1, b: 1}\ny: {<<: *x, a: 2}"
    read = read_yaml(written(tmp_path, text))
    assert read["a"] == [1, 16, 1.5, "1e-4", True, {"b": None}] and read["y"] == {"a": 2, "b": 1}
