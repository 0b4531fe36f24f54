"""Files that are whole or not there: written under a temporary name, flushed to disk, renamed. And YAML."""

import contextlib
import os
import platform
import re
import zlib
from pathlib import Path

import yaml

from runtime.errors import Refused, naming

TEMPORARY = re.compile(r"\.(.+?)(?:\.([0-9a-f]{8}))?\.(\d+)\.tmp")  # file, machine, process
MACHINE = f"{zlib.crc32(platform.node().encode()):08x}"
YAML_BYTES = 10**6  # at most; configs, taxonomies and descriptions of tile sets hold some thousands
YAML_DIGITS = 100  # of a number, at most: Python takes minutes over millions, in base 60 over thousands


def require_file(path):
    """Refuse a pipe or a device: opening one may wait, and reading one go on, for ever. What is missing, or a folder,
    says so when it is opened."""
    if not os.path.isfile(path) and os.path.exists(path) and not os.path.isdir(path):
        raise Refused(f"{path}: is a pipe or a device; a file is needed")


@contextlib.contextmanager
def open_whole(path, flush=True):
    """A binary file that stands under `path` only when the `with` block ends well; until then an older one stays.

    flush:  to disk, before the renaming; False for one of very many, as tiles: waiting takes as long as writing
    raises: OSError that names `path`, as where the disk is full
    """
    path = Path(path)
    temporary = temporary_of(path)
    try:
        with open(temporary, "wb") as file:
            yield file
            if flush:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
        if flush:
            _flush_folder(path.parent)
    except OSError as error:
        error.filename = str(path)  # a failed write names no file
        raise
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path, text):
    """Write a file whole, and the folders above it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_whole(path) as file:
        file.write(text.encode())


def temporary_of(path):
    """The name of a file before it is whole: it says which process, of which machine, writes it."""
    return path.with_name(f".{path.name}.{MACHINE}.{os.getpid()}.tmp")


def remove_leftovers(folder, name=None):
    """Delete what a kill left of files that were being written, of one name or all; not what a live process writes."""
    for leftover in Path(folder).glob(".*.tmp"):
        found = TEMPORARY.fullmatch(leftover.name)
        if found and name in (None, found[1]) and found[2] in (None, MACHINE) and not _lives(int(found[3])):
            leftover.unlink(missing_ok=True)


def _lives(pid):
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    with contextlib.suppress(OSError):  # Linux: one that was killed, and whose parent has not asked yet, writes no more
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
            return False
    return pid != os.getpid()


def read_yaml(path, blame="not YAML"):
    """The mapping that a YAML file holds; an empty file is an empty one. A key that stands twice is an error.

    raises: Refused; `blame` opens what is wrong
    """
    require_file(path)
    with naming(path, f"{blame}: "), open(path, "rb") as file:
        content = file.read(YAML_BYTES + 1)
        if len(content) > YAML_BYTES:
            raise ValueError(f"more than {YAML_BYTES:,} bytes")
        try:
            value = yaml.load(content.decode("utf-8-sig"), _PlainLoader)  # noqa: S506 - a SafeLoader
        except yaml.MarkedYAMLError as error:
            line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
            unquoted = re.search(rb"[{,:] *#[0-9A-Fa-f]{6}\b", content)
            hint = '; a # opens a comment, so write colours as "#RRGGBB"' if unquoted else ""
            raise ValueError(f"{line}{error.problem}{hint}") from None
        except RecursionError:
            raise ValueError("nested too deeply") from None
        if not isinstance(value, (dict, type(None))):
            raise ValueError(f"should hold a mapping, holds {type(value).__name__}")
        return value or {}


class _PlainLoader(yaml.SafeLoader):
    """Safe YAML in which a key given twice, as 1 and 0x1, is an error and no silent last word, and numbers end."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                value = self.construct_object(key)
                if value in seen:
                    raise yaml.MarkedYAMLError(problem=f"key {key.value:.80} stands twice", problem_mark=key.start_mark)
                seen.add(value)
        return super().construct_mapping(node, deep)

    def construct_number(self, node):
        if len(node.value) > YAML_DIGITS:
            raise yaml.MarkedYAMLError(problem=f"a number of {len(node.value):,} digits", problem_mark=node.start_mark)
        return self.construct_yaml_int(node) if node.tag.endswith(":int") else self.construct_yaml_float(node)


for kind in ("int", "float"):
    _PlainLoader.add_constructor(f"tag:yaml.org,2002:{kind}", _PlainLoader.construct_number)


def _flush_folder(folder):
    with contextlib.suppress(OSError):  # some network file systems refuse; the file itself is on disk
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
