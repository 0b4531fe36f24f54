"""Typed settings: dataclasses of `opt` fields filled from YAML and `section.key=value`. config.py declares a run's."""

import argparse
import dataclasses
import math
import re
import reprlib
import types
import typing
from dataclasses import field

import yaml

from runtime.errors import Refused, nearest
from runtime.files import read_yaml
from runtime.habits import nearest_setting

INTERVAL = re.compile(r"(([\[(])(.+), (.+)([\])]))(?: by (\d+))?")  # as opt takes it


class ScriptSettings:
    """The settings of one script, in sections: SCRIPT names it, FREE_ON_RESUME what a run's second half may change."""


def opt(default, text, within=None):
    """One setting: its default, its meaning with unit and source, and what it may be.

    within: an interval of numbers, as "[0, 1)", "(0, inf)", "[1, 2^20]" or "[2, 1024] by 2"; or words, as ("a", "b")
    """
    return field(default=default, metadata={"text": text, "within": within})


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
    values, known = {}, _settings(cls)
    sections = {key.partition(".")[0]: None for key in known}
    for key, value in read_yaml(path, "is not valid YAML of settings in sections, as `train:`").items():
        if not isinstance(value, dict) or not value and key not in sections:
            line = f"{path}: {_short(key)} must be a section of settings; the sections are {', '.join(sections)}"
            raise Refused(line if key in sections else f"{line}; did you mean {nearest_setting(key, known)}?")
        values.update({f"{key}.{name}": setting for name, setting in value.items()})
    for other in ScriptSettings.__subclasses__():
        if not values.keys() <= known.keys() and values.keys() <= _settings(other).keys():
            raise Refused(f"{path} is a config of {other.SCRIPT}, not of {cls.SCRIPT}")
    values = _checked(cls, values, str(path))
    given = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise Refused(f"{override!r}: an override has the form section.key=value, as train.epochs=10")
        try:  # words stay as they were typed: 010 names a folder, not the number 8
            given[key] = yaml.load(value, yaml.BaseLoader) if value.startswith("[") else value
        except (yaml.YAMLError, RecursionError):
            raise Refused(f"command line: {_short(override)}: a list has the form [a, b]") from None
    return config_from_flat(cls, {**values, **_checked(cls, given, "command line")})


def config_from_flat(cls, values):
    """{"section.key": value} -> config; the inverse of flatten. raises: Refused for a number out of its bounds"""
    for key, setting in _settings(cls).items():
        if key in values:
            _require_within(key, values[key], setting)
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
    """The text that --help prints: every setting with default, bounds, meaning, unit and source."""
    lines, last = [], None
    for key, setting in _settings(cls).items():
        section = key.partition(".")[0]
        lines += [f"\n{section}:"] if section != last else []
        last, within = section, setting.metadata["within"]
        bounds = f"   in {within}" if isinstance(within, str) else f"   one of {', '.join(within)}" if within else ""
        lines.append(f"  {key}={_typed(setting.default)}{bounds}\n      {setting.metadata['text']}")
    return "\n".join(lines)


def _settings(cls):
    """{"section.key": its field}, in the order in which they are declared."""
    sections = dataclasses.fields(cls)
    return {f"{section.name}.{f.name}": f for section in sections for f in dataclasses.fields(section.type)}


def _checked(cls, values, where):
    known = _settings(cls)
    for key in values:
        if key not in known:
            scripts = {other: s.SCRIPT for s in ScriptSettings.__subclasses__() for other in _settings(s)}
            meant = nearest_setting(key, known, scripts)
            hint = f"did you mean {meant}?" if meant in known else f"{scripts[meant]} has {meant}"
            raise Refused(f"{where}: there is no setting {_short(key)}; {hint}")
    return {key: _convert(key, value, known[key], where) for key, value in values.items()}


def _convert(key, value, setting, where):
    kind = setting.type
    if isinstance(kind, types.GenericAlias) or typing.get_origin(kind) is tuple:
        items = value if isinstance(value, (list, tuple)) else [] if value in (None, "") else str(value).split(",")
        if any(isinstance(item, (list, dict)) or "\0" in str(item) for item in items):
            raise Refused(f"{where}: {key}={_short(value)} must be words, as [a, b]")
        return tuple(str(item).strip() for item in items)
    choices = setting.metadata["within"]
    if isinstance(choices, tuple):
        word = ("on" if value else "off") if isinstance(value, bool) else value  # YAML reads a bare off as False
        if word not in choices:
            meant = nearest(_short(word), choices)
            raise Refused(f"{where}: {key}={_short(value)} is not one of {', '.join(choices)}; did you mean {meant}?")
        return word
    try:
        if kind is bool:
            return {"true": True, "false": False}[str(value).lower()]
        if isinstance(value, bool) or value is None or isinstance(value, (list, dict)):
            raise ValueError
        if kind is int and float(value) != int(float(value)):
            raise ValueError
        value = kind(float(value)) if kind in (int, float) else str(value)
        if kind is float and not math.isfinite(value) or kind is str and "\0" in value:  # no path holds a NUL
            raise ValueError
        return value
    except (KeyError, ValueError, OverflowError):
        words = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}[kind]
        default = _typed(setting.default)
        raise Refused(f"{where}: {key}={_short(value)} must be {words}, as {key}={default}") from None


def _require_within(key, value, setting):
    """Refuse a number out of its interval; the line ends with what the setting means, as its help has it."""
    within = setting.metadata["within"]
    if not isinstance(within, str):
        return
    interval, opens, low, high, closes, step = INTERVAL.fullmatch(within).groups()
    least, most, near = _number(low), _number(high), setting.default
    if isinstance(value, (int, float)):
        inside = least <= value <= most and (opens == "[" or value > least) and (closes == "]" or value < most)
        if inside and (not step or value % int(step) == 0):
            return
        if step:
            near = int(min(max(value, least), most) / int(step) + 0.5) * int(step)
    start = f"{low} or more" if opens == "[" else f"above {low}"
    if step:
        asked = f"be a multiple of {step} in {interval}"
    elif high == "inf":
        asked = f"be {start}"
    elif setting.type is int:
        asked = f"be {start}, and {'at most' if closes == ']' else 'below'} {high}"
    else:
        asked = f"lie in {interval}"
    meaning = setting.metadata["text"].partition(" [")[0]
    raise Refused(f"{key}={_short(value)}: must {asked}, as {_typed(near)} ({meaning})")


def _number(text):
    base, _, power = text.partition("^")
    return float(base) ** int(power or 1)


def _typed(value):
    """A default as people type it: 1e-4 and [], not 0.0001 and ()."""
    if isinstance(value, float) and 0 < value <= 1e-3:
        return re.sub(r"\.?0*e-0", "e-", f"{value:e}")
    return "[]" if value == () else str(value).lower() if isinstance(value, bool) else str(value)


def _short(value):
    """What was given, on one line and not longer than one."""
    text = value[:80] if isinstance(value, str) else reprlib.repr(value)[:80]  # repr of lists in lists may be endless
    return text if text.isprintable() else repr(text)
