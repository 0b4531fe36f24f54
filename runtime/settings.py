"""Typed settings: dataclasses of `opt` fields filled from YAML and `section.key=value`. config.py declares a run's."""

import argparse
import dataclasses
import math
import types
import typing
from dataclasses import field

import yaml

from runtime.errors import Refused, nearest
from runtime.files import read_yaml


def opt(default, text, choices=None):
    """One setting: its default, its meaning with unit and source, and the words it may take."""
    return field(default=default, metadata={"text": text, "choices": choices})


def require(holds, message):
    if not holds:
        raise Refused(message)


def from_command_line(cls, description, argv=None):
    """`CONFIG.yaml [section.key=value ...]` -> config; --help prints every setting."""
    parser = argparse.ArgumentParser(
        description=description, epilog=describe(cls), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", metavar="CONFIG.yaml", help="a file of configs/, or your own")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings that differ from the file")
    arguments = parser.parse_args(argv)
    config = load_config(cls, arguments.config, arguments.overrides)
    for key in ("data.root", "run.dir"):
        require(flatten(config)[key], f"{key} is not set: give it in {arguments.config} or as {key}=FOLDER")
    return config


def load_config(cls, path, overrides=()):
    """Defaults, then the YAML file, then `section.key=value` -> one frozen config of type `cls`.

    raises: Refused for an unknown key (with the nearest known one) or a value that its type cannot take
    """
    values = {}
    for key, value in read_yaml(path, "is not valid YAML of settings in sections, as `train:`").items():
        if not isinstance(value, dict) or not value and key not in _sections(cls):
            sections = ", ".join(_sections(cls))
            raise Refused(f"{path}: {str(key)[:80]} must be a section of settings; the sections are {sections}")
        values.update({f"{key}.{name}": setting for name, setting in value.items()})
    values = _checked(cls, values, str(path))
    given = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise Refused(f"{override!r}: an override has the form section.key=value, as train.epochs=10")
        try:  # words stay as they were typed: 010 names a folder, not the number 8
            given[key] = yaml.load(value, yaml.BaseLoader) if value.startswith("[") else value
        except yaml.YAMLError:
            raise Refused(f"command line: {override}: a list has the form [a, b]") from None
    return config_from_flat(cls, {**values, **_checked(cls, given, "command line")})


def config_from_flat(cls, values):
    """{"section.key": value} -> config; the inverse of flatten."""
    sections = {}
    for section in dataclasses.fields(cls):
        names = [f.name for f in dataclasses.fields(section.type)]
        chosen = {name: values[f"{section.name}.{name}"] for name in names if f"{section.name}.{name}" in values}
        sections[section.name] = section.type(**chosen)
    return cls(**sections)


def flatten(config):
    """config -> {"section.key": value}, plain values only."""
    return {
        f"{section}.{key}": list(value) if isinstance(value, tuple) else value
        for section, settings in dataclasses.asdict(config).items()
        for key, value in settings.items()
    }


def to_yaml(config):
    nested = {}
    for key, value in flatten(config).items():
        section, name = key.split(".")
        nested.setdefault(section, {})[name] = value
    return yaml.safe_dump(nested, sort_keys=False)


def check_resumable(saved, config, where):
    """A run directory holds one experiment: refuse a setting that differs from it, naming the setting.

    saved: {"section.key": value} of the run's checkpoint
    """
    if not isinstance(saved, dict):
        raise Refused(f"{where} holds a checkpoint of something else; choose another run.dir")
    defaults = flatten(type(config)())
    for key, value in flatten(config).items():
        before = saved.get(key, defaults[key])  # a setting that came later stood, in effect, at its default
        if key in config.FREE_ON_RESUME or before == value:
            continue
        # Only under a constant rate is a longer run the same run: a cosine would jump back up.
        if key == "train.epochs" and value > before and saved.get("train.schedule") == "constant":
            continue
        raise Refused(f"{where} holds a run with {key}={before}, not {value}; choose another run.dir")


def check_same_data(saved, facts, root, where):
    """A run goes on with the data that it began with, under whatever name: refuse others, naming what differs.

    saved: the facts in the run's checkpoint
    """
    differing = {key: value for key, value in facts.items() if key != "name" and not _same(saved.get(key), value)}
    if differing:
        plain = (int, float, str)
        named = [f"{k} {v}, not {saved.get(k)}" if isinstance(v, plain) else k for k, v in differing.items()]
        raise Refused(
            f"{root} holds other data than the run in {where} began with ({'; '.join(named)}); choose another run.dir"
        )


def _same(before, now):
    """Whether two facts are one. Band statistics may differ in their last digits: some were summed in floats before."""
    if all(isinstance(v, list) and v and all(type(number) is float for number in v) for v in (before, now)):
        return len(before) == len(now) and all(map(math.isclose, before, now))
    return before == now


def describe(cls):
    """The text that --help prints: every setting with default, meaning, unit and source."""
    lines = []
    for section in dataclasses.fields(cls):
        lines.append(f"\n{section.name}:")
        for setting in dataclasses.fields(section.type):
            default = "[]" if setting.default == () else setting.default
            lines.append(f"  {section.name}.{setting.name}={default}\n      {setting.metadata['text']}")
    return "\n".join(lines)


def _sections(cls):
    return [f.name for f in dataclasses.fields(cls)]


def _checked(cls, values, where):
    known = {
        f"{section.name}.{setting.name}": setting
        for section in dataclasses.fields(cls)
        for setting in dataclasses.fields(section.type)
    }
    for key in values:
        if key not in known:
            raise Refused(f"{where}: there is no setting {key}; did you mean {nearest(key, known)}?")
    return {key: _convert(key, value, known[key], where) for key, value in values.items()}


def _convert(key, value, setting, where):
    kind = setting.type
    if isinstance(kind, types.GenericAlias) or typing.get_origin(kind) is tuple:
        items = value if isinstance(value, (list, tuple)) else [] if value in (None, "") else str(value).split(",")
        items = tuple(str(item).strip() for item in items)
        if any("\0" in item for item in items):
            raise Refused(f"{where}: {key}={items!r:.80} must be words, as [a, b]")
        return items
    choices = setting.metadata["choices"]
    if choices:
        word = ("on" if value else "off") if isinstance(value, bool) else value  # YAML reads a bare off as False
        if word not in choices:
            meant = nearest(word, choices)
            raise Refused(f"{where}: {key}={value} is not one of {', '.join(choices)}; did you mean {meant}?")
        return word
    try:
        if kind is bool:
            if isinstance(value, bool) or value in ("true", "false"):
                return value in (True, "true")
            raise ValueError
        if isinstance(value, bool) or value is None or isinstance(value, (list, dict)):
            raise ValueError
        if kind is int and float(value) != int(float(value)):
            raise ValueError
        value = kind(float(value)) if kind in (int, float) else str(value)
        if kind is float and not math.isfinite(value) or kind is str and "\0" in value:  # no path holds a NUL
            raise ValueError
        return value
    except (ValueError, OverflowError):
        words = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}[kind]
        value = repr(value) if kind is str else value
        raise Refused(f"{where}: {key}={str(value)[:80]} must be {words}, as {key}={setting.default}") from None
