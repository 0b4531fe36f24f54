"""Files that are whole or not there: written under a temporary name, then renamed. And YAML."""

import contextlib
import os
from pathlib import Path

import yaml

from runtime.errors import Refused, naming


def require_file(path):
    """Refuse what is missing, or a folder."""
    if not os.path.isfile(path):
        raise Refused(f"{path}: {'is no file' if os.path.exists(path) else 'No such file'}")


@contextlib.contextmanager
def open_whole(path, flush=True):
    """A binary file that stands under `path` only when the `with` block ends well; until then an older one stays.

    flush:  to disk, before the renaming; False for one of very many, as tiles: waiting takes as long as writing
    raises: OSError that names `path`, as where the disk is full
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_of(path)
    try:
        with open(temporary, "wb") as file:
            yield file
            if flush:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        error.filename = str(path)  # a failed write names no file
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path, text):
    with open_whole(path) as file:
        file.write(text.encode())


def temporary_of(path):
    """The name of a file before it is whole: it says which process writes it. A kill may leave one, unread."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def read_yaml(path):
    """The mapping that a YAML file holds; an empty file is an empty one. A key that stands twice is an error."""
    with naming(path, "not YAML: "), open(path, encoding="utf-8-sig") as file:
        try:
            value = yaml.load(file, _PlainLoader)  # noqa: S506 - a SafeLoader
        except yaml.MarkedYAMLError as error:
            raise ValueError(f"line {error.problem_mark.line + 1}: {error.problem}") from None
        if not isinstance(value or {}, dict):
            raise ValueError(f"should hold a mapping, holds {type(value).__name__}")
        return value or {}


class _PlainLoader(yaml.SafeLoader):
    """Safe YAML in which a key given twice is an error, and no silent last word."""

    def construct_mapping(self, node, deep=False):
        seen = []
        for key in [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]:
            value = self.construct_object(key, deep=True)
            if value in seen:
                raise yaml.MarkedYAMLError(problem=f"key {value} appears twice", problem_mark=key.start_mark)
            seen.append(value)
        return super().construct_mapping(node, deep)
