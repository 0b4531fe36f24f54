from dataclasses import replace

import pytest
import yaml
from commands import ROOT, error_of

from config import PretrainConfig, SegmenterConfig
from runtime.errors import Refused
from runtime.settings import check_resumable, config_from_flat, describe, flatten, load_config, to_yaml


def written(tmp_path, text=""):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", sorted(ROOT.glob("configs/*/*.yaml")), ids=lambda p: f"{p.parent.name}/{p.name}")
def test_every_config_loads(path):
    if path.parent.name in ("taxonomies", "tables"):
        pytest.skip("no config of a run")
    config = load_config(PretrainConfig if "mae" in path.stem else SegmenterConfig, path)
    assert config.run.dir and config.data.root


GAME = {f"adversarial.{name}" for name in ("weight", "warmup_steps", "learning_rate")}
LETTER = {"supervision.aggregate", "model.head", "train.head_rate", *GAME}
LETTER |= {f"adversarial.{name}" for name in ("maps", "temperature", "beta1", "beta2")}
# What a part of a row's name may change, against the row Agg of its table.
SAYS = {
    "high": {"supervision.labels"}, "low": {"supervision.labels"}, "obs": {"supervision.aggregate"},
    "literal": {"supervision.aggregate"}, "app": GAME, "pre": {"model.init"}, "ours": {*GAME, "model.init"},
    "paper": LETTER, "table3": {*GAME, "data.exclude_regions", "model.init"},
}  # fmt: skip


@pytest.mark.parametrize("folder", ["demo", "dubai", "low2high", "naip215"])
def test_rows_of_a_table_differ_in_what_their_names_say(folder):
    paths = [path for path in (ROOT / "configs" / folder).glob("*.yaml") if not path.stem.startswith("mae")]
    rows = {path.stem: flatten(load_config(SegmenterConfig, path)) for path in paths}
    games = {False: set(), True: set()}
    for name, row in rows.items():
        named = {"run.dir", "run.name"}.union(*(SAYS.get(word, ()) for word in name.split("_")))
        assert {key for key in row if row[key] != rows["agg"][key]} <= named, name
        if row["adversarial.weight"]:
            game = tuple(value for key, value in row.items() if key.startswith("adversarial."))
            games["paper" in name].add(game)
    assert len(games[False]) == 1 and len(games[True]) <= 1, "rows with an adversary play one game"


def test_overrides_come_after_the_file_and_defaults_before(tmp_path):
    text = "train: {epochs: 7, learning_rate: 1e-3, precision: off, channels_last: true}\nmodel:\n"
    text += "data: {regions: ['01', b]}"
    path = written(tmp_path, text)
    config = load_config(SegmenterConfig, path, ["train.epochs=9", "data.dihedral=false"])
    assert (config.train.epochs, config.train.batch_size, config.data.dihedral) == (9, 24, False)
    # As PyYAML does not read them.
    assert (config.train.learning_rate, config.train.precision, config.train.channels_last) == (1e-3, "off", "true")
    assert config.data.regions == ("01", "b")


def test_words_of_the_command_line_stay_as_they_were_typed(tmp_path):
    more = ["run.dir=010", "run.name=12:30", "data.regions=[01,010]", "data.dihedral=FALSE", "train.epochs=1e1"]
    config = load_config(SegmenterConfig, written(tmp_path, "run: {seed: 1}"), more)
    assert (config.run.dir, config.run.name, config.data.regions) == ("010", "12:30", ("01", "010"))
    assert config.data.dihedral is False and config.train.epochs == 10


@pytest.mark.parametrize("text, names", [  # more in test_messages.py, and YAML that is none in runtime/test_files.py
    ("train: 3", ["no setting train;"]),
    ("epochs: 3", ["no setting epochs; did you mean train.epochs?"]),
    ("train: {seed: 1}", ["there is no setting train.seed; did you mean run.seed?"]),
    ("device: 1", ["there is no setting device; did you mean run.device?"]),
    ("gan: {weight: 1}", ["there is no setting gan.weight; did you mean adversarial.weight?"]),
    ("train: {epochs: 2.5}", ["train.epochs=2.5", "whole number"]),
    ("train: {epochs: }", ["train.epochs= ", "whole number"]),
    ("data: {gain: .nan}", ["data.gain=nan", "a number"]),
    ("data: {dihedral: 3}", ["data.dihedral=3", "true or false, like data.dihedral=true"]),
    ("train: {precision: on}", ["train.precision=true"]),
    ("supervision: {labels: [low]}", ["supervision.labels=['low']", "low_regions"]),
    ("supervision: {aggregate: observation, labels: high}", ["supervision.labels=high", "low_regions"]),
    ("supervision: {observation: table.yaml}", ["table.yaml", "aggregate=observation"]),
    ("adversarial: {control: frozen}", ["adversarial.control=frozen", "adversarial.weight must be above 0"]),
    ("[1, 2]", ["should hold a mapping"]),
])  # fmt: skip
def test_a_wrong_setting_is_one_line_that_names_it(tmp_path, text, names):
    with pytest.raises(Refused) as caught:
        load_config(SegmenterConfig, written(tmp_path, text))
    message = str(caught.value)
    assert "\n" not in message and all(name in message for name in names), message


@pytest.mark.parametrize("cls", [SegmenterConfig, PretrainConfig])
def test_every_number_has_bounds_and_every_default_lies_within(cls):
    assert flatten(config_from_flat(cls, flatten(cls()))) == flatten(cls())
    for key, value in flatten(cls()).items():
        if type(value) in (int, float):
            with pytest.raises(Refused, match=f"^{key}=-1: must be .*, like "):
                config_from_flat(cls, {key: -1})


@pytest.mark.parametrize("key, wrong", [("data.gain", 1.0), ("supervision.min_coverage", 0.0),
                                        ("adversarial.layers", 6), ("train.frozen_share", 2.0)])  # fmt: skip
def test_bounds_are_open_or_closed(key, wrong):
    with pytest.raises(Refused, match=f"^{key}={wrong}: must be "):
        config_from_flat(SegmenterConfig, {key: wrong})


def test_a_mask_that_leaves_nothing_to_see_is_refused(tmp_path):
    with pytest.raises(Refused, match="mask_ratio=0.98"):
        load_config(PretrainConfig, written(tmp_path, "data: {crop_px: 64}"), ["mae.mask_ratio=0.98"])
    with pytest.raises(Refused, match="masks 1 of 1 patches of 32 px"):
        load_config(PretrainConfig, written(tmp_path, "data: {crop_px: 32}"), ["mae.mask_where=layers"])


def test_help_prints_every_setting_with_its_source():
    for cls in (SegmenterConfig, PretrainConfig):
        assert all(f"{key}=" in describe(cls) for key in flatten(cls()))
    text = describe(SegmenterConfig)
    assert "[paper, Sec. 4.6]" in text


def test_yaml_and_flat_forms_give_the_config_back(tmp_path):
    config = load_config(SegmenterConfig, written(tmp_path, "data: {root: x, regions: [a]}\nrun: {dir: y}"))
    assert load_config(SegmenterConfig, written(tmp_path, to_yaml(config))) == config
    again = config_from_flat(SegmenterConfig, {**flatten(config), "train.of_another_version": 1})
    assert flatten(again) == flatten(config)
    assert yaml.safe_load(to_yaml(config))["data"]["regions"] == ["a"]


def test_a_run_goes_on_with_more_epochs_or_moved_data_and_refuses_another_experiment(tmp_path):
    path = written(tmp_path, "train: {epochs: 5}")
    saved = flatten(load_config(SegmenterConfig, path))
    same = ["data.root=elsewhere", "data.workers=0", "run.device=cpu", "run.log_every=1", "train.epochs=6"]
    check_resumable(saved, load_config(SegmenterConfig, path, same), "runs/x")
    for other in ("train.epochs=4", "train.learning_rate=1", "run.seed=1", "model.width=32"):
        with pytest.raises(Refused, match=f"runs/x.*{other.split('=')[0]}"):
            check_resumable(saved, load_config(SegmenterConfig, path, [other]), "runs/x")
    two = {"schedule=cosine": "the learning rate fell over", "frozen_share=0.2": "the ResNet-18 was frozen for a share"}
    for whole, why in two.items():
        short, long = (load_config(SegmenterConfig, path, [f"train.{whole}", f"train.epochs={n}"]) for n in (5, 6))
        with pytest.raises(Refused, match=f"runs/x.* train.epochs=5, not 6; with train.{whole} {why}"):
            check_resumable(flatten(short), long, "runs/x")


def test_a_setting_that_came_later_leaves_earlier_runs_resumable_at_its_default():
    config = SegmenterConfig()
    saved = {key: value for key, value in flatten(config).items() if key != "supervision.codes"}
    check_resumable({**saved, "train.channels_last": True}, config, "runs/x")  # as it was before it could be auto
    with pytest.raises(Refused, match="supervision.codes=native, not merged"):
        check_resumable(saved, replace(config, supervision=replace(config.supervision, codes="merged")), "runs/x")


def test_the_command_line_exits_with_2_and_one_line(tmp_path):
    assert "train.epochs" in error_of("train_seg.py", written(tmp_path, "train: {epoch: 3}"))
    assert "run.dir is not set" in error_of("train_mae.py", written(tmp_path, "data: {root: x}"))
