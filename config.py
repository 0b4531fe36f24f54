"""Every setting of a run, declared once: type, default, unit, meaning, source.

A YAML file fills it, `section.key=value` on the command line overrides it, `--help` prints it, and the run directory
keeps it.
Tags: [paper, Sec. n], [paper silent; ours], [differs: why].
"""

import argparse
import dataclasses
import difflib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path

import yaml


class ConfigError(Exception):
    """A setting that cannot be; one line that names it and the nearest valid value."""


def opt(default, text, choices=None):
    """One setting: its default, its meaning with unit and source, and the words it may take."""
    return field(default=default, metadata={"text": text, "choices": choices})


def require(holds, message):
    if not holds:
        raise ConfigError(message)


@dataclass(frozen=True)
class DataConfig:
    root: str = opt("", "the tile set's folder, as data.build or data.synthetic writes it; required")
    regions: tuple[str, ...] = opt((), "use the tiles of these regions only, as [a, b]; empty: of all")
    exclude_regions: tuple[str, ...] = opt((), "leave the tiles of these regions out")
    workers: int = opt(2, "processes that read and change tiles; 0: the training process itself")
    dihedral: bool = opt(True, "turn and mirror training tiles, eight ways [paper silent; ours]")
    gain: float = opt(0.2, "brightness times 1 +- this, one draw for all bands [paper silent; ours]")
    offset: float = opt(0.2, "brightness plus +- this many standard deviations, one draw [paper silent; ours]")

    def __post_init__(self):
        require(self.workers >= 0, f"data.workers={self.workers}: must be 0 or more")
        require(0 <= self.gain < 1, f"data.gain={self.gain}: must lie in [0, 1), as 0.2")
        require(self.offset >= 0, f"data.offset={self.offset}: must be 0 or more, as 0.2")


@dataclass(frozen=True)
class ModelConfig:
    width: int = opt(64, "channels of the stem; 64 is ResNet-18 [paper, Sec. 4.2]")
    init: str = opt("none", "start of the ResNet-18: none, imagenet, or the path of a resnet18.pt [paper silent; ours]")

    def __post_init__(self):
        require(self.width >= 2 and self.width % 2 == 0, f"model.width={self.width}: must be an even number from 2 up")
        require(
            self.init != "imagenet" or self.width == 64,
            f"model.init=imagenet needs model.width=64, the width of those weights; model.width is {self.width}",
        )


@dataclass(frozen=True)
class SupervisionConfig:
    labels: str = opt(
        "low_regions",
        "high: fine labels (High); low_upsampled: coarse labels upsampled (Low); "
        "low_regions: coarse labels over regions (Agg, Ours) [paper, Sec. 4.3, 5]",
        ("high", "low_upsampled", "low_regions"),
    )
    aggregate: str = opt(
        "sum_logits",
        "what a region's pixels become: sum_logits [paper, Sec. 4.3], mean_logits or mean_probs [ours]",
        ("sum_logits", "mean_logits", "mean_probs"),
    )
    min_coverage: float = opt(
        1.0, "supervise cells of which at least this share of the area lies in the tile [paper silent; ours]"
    )

    def __post_init__(self):
        require(0 < self.min_coverage <= 1, f"supervision.min_coverage={self.min_coverage}: must lie in (0, 1]")


@dataclass(frozen=True)
class TrainConfig:
    epochs: int = opt(100, "epochs of max(1, ceil(tiles / batch)) steps [paper, Sec. 4.6]")
    batch_size: int = opt(24, "tiles of one step, over all processes [paper silent; ours]")
    micro_batch: int = opt(0, "tiles of one forward pass of one process; 0: its whole share of the batch")
    learning_rate: float = opt(1e-4, "of Adam [paper, Sec. 4.6]")
    schedule: str = opt(
        "constant", "constant [paper, Sec. 4.6] or cosine, down to 0 at the last step [ours]", ("constant", "cosine")
    )
    warmup_steps: int = opt(0, "steps over which the learning rate rises from 0 [paper silent; ours]")
    average: float = opt(
        0.0,
        "validate and keep an exponential moving average of the weights with this decay per step, as 0.99; "
        "0: the weights themselves [paper silent; ours]",
    )
    eval_every: int = opt(0, "steps between validations and saves; 0: once an epoch [paper silent; ours]")
    precision: str = opt(
        "auto",
        "of the networks: bf16, fp16 (with loss scaling) or off (float32); auto: bf16 on CUDA, else off",
        ("auto", "bf16", "fp16", "off"),
    )
    channels_last: bool = opt(True, "memory format of the networks' tensors; faster convolutions")

    def __post_init__(self):
        require(self.epochs >= 1, f"train.epochs={self.epochs}: must be 1 or more")
        require(self.batch_size >= 1, f"train.batch_size={self.batch_size}: must be 1 or more")
        require(self.micro_batch >= 0, f"train.micro_batch={self.micro_batch}: must be 0 or more")
        require(self.learning_rate > 0, f"train.learning_rate={self.learning_rate}: must be above 0, as 1e-4")
        require(self.warmup_steps >= 0, f"train.warmup_steps={self.warmup_steps}: must be 0 or more")
        require(0 <= self.average < 1, f"train.average={self.average}: must lie in [0, 1), as 0.99")
        require(self.eval_every >= 0, f"train.eval_every={self.eval_every}: must be 0 or more")


@dataclass(frozen=True)
class RunConfig:
    dir: str = opt("", "the run's folder: config.yaml, log.jsonl, last.pt, best.pt, metrics.json, figures/; required")
    name: str = opt("", "the row's name in tables; empty: the name of the run's folder")
    seed: int = opt(0, "of the weights and of every draw")
    device: str = opt("auto", "auto, cpu, cuda or mps", ("auto", "cpu", "cuda", "mps"))
    log_every: int = opt(20, "steps between records in log.jsonl")

    def __post_init__(self):
        require(self.seed >= 0, f"run.seed={self.seed}: must be 0 or more")
        require(self.log_every >= 1, f"run.log_every={self.log_every}: must be 1 or more")


@dataclass(frozen=True)
class SegmenterConfig:
    """The settings of train_seg.py."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    supervision: SupervisionConfig = SupervisionConfig()
    train: TrainConfig = TrainConfig()
    run: RunConfig = RunConfig()


# What may differ when a run is taken up again: where data lies, workers, device and logging; train.epochs may grow.
FREE_ON_RESUME = {"data.root", "data.workers", "run.dir", "run.name", "run.device", "run.log_every"}


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

    raises: ConfigError for an unknown key (with the nearest known one) or a value that its type cannot take
    """
    values = {}
    for key, value in _read_yaml(path).items():
        if not isinstance(value, dict):
            raise ConfigError(f"{path}: {key} must be a section of settings; the sections are {_sections(cls)}")
        values.update({f"{key}.{name}": setting for name, setting in value.items()})
    values = _checked(cls, values, str(path))
    given = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise ConfigError(f"{override!r}: an override has the form section.key=value, as train.epochs=10")
        try:
            given[key] = yaml.safe_load(value) if value else ""
        except yaml.YAMLError:
            given[key] = value
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
    for key, value in flatten(config).items():
        before = saved.get(key)
        if key in FREE_ON_RESUME or before == value:
            continue
        if key == "train.epochs" and value > before:
            continue
        raise ConfigError(f"{where} holds a run with {key}={before}, not {value}; choose another run.dir")


def describe(cls):
    """The text that --help prints: every setting with default, meaning, unit and source."""
    lines = []
    for section in dataclasses.fields(cls):
        lines.append(f"\n{section.name}:")
        for setting in dataclasses.fields(section.type):
            default = "[]" if setting.default == () else setting.default
            lines.append(f"  {section.name}.{setting.name}={default}\n      {setting.metadata['text']}")
    return "\n".join(lines)


def _read_yaml(path):
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        where = "" if line is None else f" in line {line + 1}"
        raise ConfigError(f"{path}: is not valid YAML{where}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: must hold sections of settings; the sections are written as `train:`")
    return content


def _sections(cls):
    return ", ".join(f.name for f in dataclasses.fields(cls))


def _checked(cls, values, where):
    known = {
        f"{section.name}.{setting.name}": setting
        for section in dataclasses.fields(cls)
        for setting in dataclasses.fields(section.type)
    }
    for key in values:
        if key not in known:
            nearest = difflib.get_close_matches(str(key), known, n=1, cutoff=0.0)[0]
            raise ConfigError(f"{where}: there is no setting {key}; did you mean {nearest}?")
    return {key: _convert(key, value, known[key], where) for key, value in values.items()}


def _convert(key, value, setting, where):
    kind = setting.type
    if isinstance(kind, types.GenericAlias) or typing.get_origin(kind) is tuple:
        items = value if isinstance(value, (list, tuple)) else [] if value in (None, "") else str(value).split(",")
        return tuple(str(item).strip() for item in items)
    choices = setting.metadata["choices"]
    if choices:
        word = ("on" if value else "off") if isinstance(value, bool) else value  # YAML reads a bare off as False
        if word not in choices:
            nearest = difflib.get_close_matches(str(word), choices, n=1, cutoff=0.0)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            raise ConfigError(f"{where}: {key}={value} is not one of {', '.join(choices)}{hint}")
        return word
    try:
        if kind is bool:
            if isinstance(value, bool):
                return value
            raise ValueError
        if isinstance(value, bool) or value is None or isinstance(value, (list, dict)):
            raise ValueError
        if kind is int and float(value) != int(float(value)):
            raise ValueError
        number = kind(float(value)) if kind in (int, float) else str(value)
        if kind is float and number != number:
            raise ValueError
        return number
    except (ValueError, OverflowError):
        words = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}[kind]
        raise ConfigError(f"{where}: {key}={value} must be {words}, as {key}={setting.default}") from None
