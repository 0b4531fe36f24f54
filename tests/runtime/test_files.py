"""Files that are whole or absent, and YAML: read plain, or refused at once in one line."""

import pytest

from runtime.errors import Refused
from runtime.files import open_whole, read_yaml, remove_leftovers, temporary_of, write_text


def written(tmp_path, text):
    path = tmp_path / "a.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_what_breaks_off_leaves_the_older_file_and_nothing_else(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(ZeroDivisionError), open_whole(tmp_path / "a.txt") as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.txt", "old")]


def test_what_a_kill_left_goes(tmp_path):
    for name in ("a.tif", "b.tif"):
        temporary_of(tmp_path / name).touch()
    remove_leftovers(tmp_path, "a.tif")
    assert list(tmp_path.iterdir()) == [temporary_of(tmp_path / "b.tif")]
    remove_leftovers(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text, key", [("{1: a, 0x1: b}", "1"), ("{a: {b: 1, b: 1}}", "b"),
                                       ("{yes: 1, true: 2}", "True"), ("b: [\n{a: 1, 'a': 2}]", "a")])  # fmt: skip
def test_one_key_under_two_spellings_is_refused(tmp_path, text, key):
    with pytest.raises(Refused, match=f"a.yaml: not YAML: line [12]: key {key} stands twice$"):
        read_yaml(written(tmp_path, text))


def test_keys_of_a_merge_may_be_given_anew(tmp_path):
    assert read_yaml(written(tmp_path, "x: &x {a: 1, b: 1}\ny: {<<: *x, a: 2}"))["y"] == {"a": 2, "b": 1}


@pytest.mark.parametrize("text", ["{a: 1", "{[1]: 2}", "a: \0", b"a: \xff", "[1]", "a: !!python/name:os.system"])
def test_whatever_is_wrong_is_one_line(tmp_path, text):
    with pytest.raises(Refused) as caught:
        read_yaml(written(tmp_path, text))
    assert "a.yaml: not YAML: " in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_plain_is_read(tmp_path):
    assert read_yaml(written(tmp_path, "")) == {}
    assert read_yaml(written(tmp_path, "\ufeffa: [1, 0x10, 1.5, 1e-4, yes, {b: }]")) == {
        "a": [1, 16, 1.5, "1e-4", True, {"b": None}]
    }
