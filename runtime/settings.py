"""Typed settings: dataclasses of `opt` fields filled from YAML and `section.key=value`. config.py declares a run's."""

import dataclasses
import math
import operator
import typing
from pathlib import Path

import yaml

from runtime import command
from runtime.errors import Refused, nearest, require
from runtime.files import read_yaml

# What bounds a number: {name in `opt`: (whether it holds of the number and the bound, in words)}.
BOUNDS = {
    "least": (operator.ge, "{} or more"),
    "above": (operator.gt, "above {}"),
    "most": (operator.le, "at most {}"),
    "below": (operator.lt, "below {}"),
    "multiple_of": (lambda number, bound: number % bound == 0, "a multiple of {}"),
}


def opt(default, text, choices=(), **bounds):
    """One setting: its default, its meaning with unit and source, the words that it may be, the bounds of a number."""
    return dataclasses.field(default=default, metadata={"text": text, "choices": choices, "bounds": bounds})


def from_command_line(cls, description):
    """`CONFIG.yaml [section.key=value ...]` -> config; --help prints every setting."""
    parser = command.parser(description)
    parser.epilog = describe(cls)
    parser.add_argument("config", metavar="CONFIG.yaml", help="a file of configs/, or your own")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings that differ from the file")
    arguments = parser.parse_args()
    config = load_config(cls, arguments.config, arguments.overrides)
    for key in ("data.root", "run.dir"):
        require(flatten(config)[key], f"{key} is not set: give it in {arguments.config} or as {key}=FOLDER")
    return config


def load_config(cls, path, overrides=()):
    """Defaults, then the YAML file, then `section.key=value` -> one frozen config of type `cls`.

    raises: Refused for an unknown key (with the nearest known one) or a value that its type or bounds do not allow
    """
    given = {}
    for section, settings in read_yaml(path).items():
        if isinstance(settings, dict):
            given.update({f"{section}.{name}": value for name, value in settings.items()})
        elif settings is not None:  # a setting outside a section: refused as one that is not known
            given[section] = settings
    values = _converted(cls, given, path)
    for override in overrides:
        key, equals, value = override.partition("=")
        require(equals, f"{override!r}: an override has the form section.key=value, like train.epochs=10")
        values.update(_converted(cls, {key: value}, "command line"))
    return config_from_flat(cls, values)


def config_from_flat(cls, values):
    """{"section.key": value} -> config; the inverse of flatten. Other keys are left out.

    raises: Refused for a number out of its bounds, and for settings that do not go together
    """
    sections = {section.name: {} for section in dataclasses.fields(cls)}
    for key, setting in _settings(cls).items():
        if key in values:
            value, bounds = values[key], setting.metadata["bounds"]
            holds = all(BOUNDS[name][0](value, bound) for name, bound in bounds.items())
            require(holds, f"{key}={value}: must be {_in_words(bounds)}, like {_typed(setting.default)}")
            section, _, name = key.partition(".")
            sections[section][name] = value
    return cls(**{section.name: section.type(**sections[section.name]) for section in dataclasses.fields(cls)})


def flatten(config):
    """config -> {"section.key": value}, plain values only."""
    return {
        f"{section}.{key}": list(value) if isinstance(value, tuple) else value
        for section, settings in dataclasses.asdict(config).items()
        for key, value in settings.items()
    }


def to_yaml(config):
    return yaml.safe_dump(dataclasses.asdict(config), sort_keys=False)


def check_resumable(saved, config, where):
    """A run directory holds one experiment: refuse a setting that differs from it, naming the setting.

    saved: {"section.key": value} of the run's checkpoint
    """
    defaults, settings, whole = flatten(type(config)()), flatten(config), None
    if config.train.schedule != "constant":
        whole = f"train.schedule={config.train.schedule} the learning rate fell over those epochs"
    elif frozen := settings.get("train.frozen_share"):
        whole = f"train.frozen_share={frozen} the ResNet-18 was frozen for a share of those epochs"
    for key, value in settings.items():
        before = saved.get(key, defaults[key])  # a setting that is newer than the checkpoint had its default value
        more = key == "train.epochs" and value > before
        same = before == value or key == "model.init" and same_file(before, value)
        if key in config.FREE_ON_RESUME or same or more and not whole:
            continue
        why = f" with {whole}, so a longer run is a different run;" if more else ""
        raise Refused(f"{where} holds a run with {key}={before}, not {value};{why} choose another run.dir")


def same_file(before, now):
    """Whether two paths name one file, which may have moved with the folder of its run, as runs/mae-0/resnet18.pt."""
    before, now = Path(before), Path(now)
    return before.parts[-2:] == now.parts[-2:] or before.absolute() == now.absolute()


def check_same_data(saved, facts, root, where):
    """A run goes on with the data that it began with, under whatever name. saved: the facts in the run's checkpoint"""
    differing = ", ".join(key for key, value in facts.items() if key != "name" and saved.get(key, value) != value)
    message = f"{root} and the data that {where} was trained on differ in: {differing}; choose another run.dir"
    require(not differing, message)


def describe(cls):
    """The text that --help prints: every setting with default, what it may be, meaning, unit and source."""
    lines = []
    for key, setting in _settings(cls).items():
        about = setting.metadata
        allowed = f"one of {', '.join(about['choices'])}" if about["choices"] else _in_words(about["bounds"])
        lines.append(f"\n  {key}={_typed(setting.default)}   {allowed}".rstrip())
        lines.append(f"      {about['text']}")
    return "\n".join(lines)


def _in_words(bounds):
    return " and ".join(BOUNDS[name][1].format(bound) for name, bound in bounds.items())


def _settings(cls):
    """{"section.key": its field}"""
    sections = dataclasses.fields(cls)
    return {f"{section.name}.{f.name}": f for section in sections for f in dataclasses.fields(section.type)}


def _converted(cls, values, where):
    known = _settings(cls)
    for key in values:
        if key not in known:
            raise Refused(f"{where}: there is no setting {key!s:.80}; did you mean {nearest(key, known)}?")
    return {key: _convert(key, value, known[key], where) for key, value in values.items()}


def _convert(key, value, setting, where):
    """A value of YAML or of the command line -> one of the setting's type."""
    kind, choices, text = setting.type, setting.metadata["choices"], "" if value is None else str(value)
    text = text.lower() if isinstance(value, bool) else text
    if typing.get_origin(kind) is tuple:  # [a, b], of words that YAML and people write with and without quotes
        return tuple(filter(None, (word.strip(" '\"") for word in text.strip("[]").split(","))))
    if choices:
        text = "off" if text == "false" and "off" in choices else text  # as YAML reads a bare off
        if text not in choices:
            meant = nearest(text, choices)
            raise Refused(f"{where}: {key}={text:.80} is not one of {', '.join(choices)}; did you mean {meant}?")
    if kind is str:
        return text
    try:  # PyYAML reads 1e-3 as a word, so numbers are read from words here
        value = {"true": True, "false": False}[text.lower()] if kind is bool else kind(float(text))
        if kind is not bool and (value != float(text) or math.isinf(value)):  # 1.5 for a whole number, nan, inf
            raise ValueError
    except (KeyError, ValueError, OverflowError):
        words = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
        raise Refused(f"{where}: {key}={text:.80} must be {words}, like {key}={_typed(setting.default)}") from None
    return value


def _typed(value):
    """A default as people type it."""
    return "[]" if value == () else str(value).lower() if isinstance(value, bool) else str(value)
