"""Typed settings: dataclasses of `opt` fields filled from YAML and `section.key=value`. config.py declares a run's."""

import argparse
import dataclasses
import math
import typing

import yaml

from runtime.errors import Refused, nearest
from runtime.files import read_yaml


class ScriptSettings:
    """The settings of one script, in sections: SCRIPT names it, FREE_ON_RESUME what a run's second half may change."""


def opt(default, text, choices=()):
    """One setting: its default, its meaning with unit and source, and the words that it may be."""
    return dataclasses.field(default=default, metadata={"text": text, "choices": choices})


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

    raises: Refused for an unknown key (with the nearest known one) or a value that its type or bounds do not allow
    """
    values = {}
    for section, settings in read_yaml(path).items():
        if not isinstance(settings, (dict, type(None))):
            meant = _nearest_setting(section, _settings(cls))
            raise Refused(f"{path}: {section!s:.80} must be a section of settings, as `train:`; did you mean {meant}?")
        values.update({f"{section}.{name}": value for name, value in (settings or {}).items()})
    values = _checked(cls, values, path)
    for override in overrides:
        key, equals, value = override.partition("=")
        require(equals, f"{override!r}: an override has the form section.key=value, as train.epochs=10")
        values.update(_checked(cls, {key: value}, "command line"))
    return config_from_flat(cls, values)


def config_from_flat(cls, values):
    """{"section.key": value} -> config; the inverse of flatten. raises: Refused for a number out of its bounds"""
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
        if key == "train.epochs" and value > before:
            if saved.get("train.schedule") == "constant":
                continue
            raise Refused(
                f"{where} holds a run with {key}={before}, not {value}: by train.schedule=cosine its rate fell towards "
                "0 over those epochs and would jump back up, so a longer run is another run; choose another run.dir"
            )
        raise Refused(f"{where} holds a run with {key}={before}, not {value}; choose another run.dir")


def check_same_data(saved, facts, root, where):
    """A run goes on with the data that it began with, under whatever name: refuse others, naming what differs.

    saved: the facts in the run's checkpoint
    """
    differing = [key for key, value in facts.items() if key != "name" and saved.get(key) != value]
    if differing:
        raise Refused(
            f"{root} holds other data than the run in {where} began with ({', '.join(differing)} differ); "
            "choose another run.dir"
        )


def describe(cls):
    """The text that --help prints: every setting with default, choices, meaning, unit and source."""
    lines, last = [], None
    for key, setting in _settings(cls).items():
        section = key.partition(".")[0]
        lines += [f"\n{section}:"] if section != last else []
        choices = setting.metadata["choices"]
        words = f"   one of {', '.join(choices)}" if choices else ""
        lines.append(f"  {key}={_typed(setting.default)}{words}\n      {setting.metadata['text']}")
        last = section
    return "\n".join(lines)


def _settings(cls):
    """{"section.key": its field}, in the order in which they are declared."""
    sections = dataclasses.fields(cls)
    return {f"{section.name}.{f.name}": f for section in sections for f in dataclasses.fields(section.type)}


def _checked(cls, values, where):
    known = _settings(cls)
    for key in values:
        for other in ScriptSettings.__subclasses__():
            require(key in known or key not in _settings(other), f"{where}: {key} is a setting of {other.SCRIPT}")
        if key not in known:
            raise Refused(f"{where}: there is no setting {key!s:.80}; did you mean {_nearest_setting(key, known)}?")
    return {key: _convert(key, value, known[key], where) for key, value in values.items()}


def _nearest_setting(key, known):
    """By its last part, as run.seed for seed and train.seed, else by its letters."""
    name = str(key).rpartition(".")[2]
    return nearest(key, [setting for setting in known if setting.endswith(f".{name}")] or known)


def _convert(key, value, setting, where):
    kind, choices = setting.type, setting.metadata["choices"]
    if typing.get_origin(kind) is tuple:
        words = value if isinstance(value, (list, tuple)) else str(value or "").strip("[]").split(",")
        return tuple(word for word in (str(word).strip(" '\"") for word in words) if word)
    if choices:
        word = str(value).lower() if isinstance(value, bool) else value
        word = "off" if word == "false" and "off" in choices else word  # YAML reads a bare off as False
        if word not in choices:
            meant = nearest(word, choices)
            raise Refused(f"{where}: {key}={value!s:.80} is not one of {', '.join(choices)}; did you mean {meant}?")
        return word
    try:
        if kind is bool:
            return {"true": True, "false": False}[str(value).lower()]
        if isinstance(value, (bool, list, dict, type(None))):
            raise ValueError
        if kind is int and float(value) != int(float(value)) or kind is float and not math.isfinite(float(value)):
            raise ValueError
        return kind(float(value)) if kind in (int, float) else str(value)
    except (KeyError, ValueError, OverflowError):
        words = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}[kind]
        default = _typed(setting.default)
        raise Refused(f"{where}: {key}={value!s:.80} must be {words}, as {key}={default}") from None


def _typed(value):
    """A default as people type it."""
    return "[]" if value == () else str(value).lower() if isinstance(value, bool) else str(value)
