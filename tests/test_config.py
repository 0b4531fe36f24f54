import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from config import PretrainConfig, SegmenterConfig
from runtime.errors import Refused
from runtime.settings import (
    check_resumable,
    check_same_data,
    config_from_flat,
    describe,
    flatten,
    load_config,
    to_yaml,
)

ROOT = Path(__file__).parent.parent


def written(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", sorted(ROOT.glob("configs/*/*.yaml")), ids=lambda p: f"{p.parent.name}/{p.name}")
def test_every_config_loads(path):
    if path.parent.name in ("taxonomies", "tables"):
        pytest.skip("no config of a run")
    config = load_config(PretrainConfig if "mae" in path.stem else SegmenterConfig, path)
    assert config.run.dir and config.data.root


def test_overrides_come_after_the_file_and_defaults_before(tmp_path):
    path = written(tmp_path, "train: {epochs: 7, learning_rate: 1e-3}\n")
    config = load_config(SegmenterConfig, path, ["train.epochs=9", "data.regions=[va, md]", "data.dihedral=false"])
    assert config.train.epochs == 9
    assert config.train.learning_rate == 1e-3  # PyYAML reads 1e-3 as a word
    assert config.train.batch_size == 24
    assert config.data.regions == ("va", "md") and config.data.dihedral is False


@pytest.mark.parametrize(
    "text, names",
    [
        ("train: {epoch: 3}", ["train.epoch", "train.epochs"]),
        ("trian: {epochs: 3}", ["trian.epochs", "train.epochs"]),
        ("train: 3", ["train must be a section"]),
        ("train: {epochs: many}", ["train.epochs=many", "whole number"]),
        ("train: {epochs: 2.5}", ["train.epochs=2.5", "whole number"]),
        ("train: {epochs: 0}", ["train.epochs=0", "1 or more"]),
        ("train: {epochs: .inf}", ["train.epochs=inf", "whole number"]),
        ("train: {learning_rate: -1}", ["train.learning_rate=-1", "1e-4"]),
        ("train: {precision: fp8}", ["train.precision=fp8", "did you mean fp16"]),
        ("supervision: {labels: low}", ["supervision.labels=low", "low_regions"]),
        ("supervision: {aggregate: observation, labels: high}", ["supervision.labels=high", "low_regions"]),
        ("supervision: {observation: table.yaml}", ["table.yaml", "aggregate=observation"]),
        ("supervision: {codes: nativ}", ["did you mean native"]),
        ("supervision: {min_coverage: 0}", ["min_coverage=0.0", "above 0 and at most 1"]),
        ("supervision: {aggregate: sum_logits}", ["supervision.aggregate=sum_logits", "sum"]),
        ("supervision: {aggregate: mean_logits}", ["supervision.aggregate=mean_logits"]),
        ("adversarial: {temperature: 1000}", ["adversarial.temperature=1000.0", "tau / n²", "1.11"]),
        ("adversarial: {maps: hard}", ["adversarial.maps=hard", "straight_through"]),
        ("adversarial: {control: shuffle}", ["adversarial.control=shuffle", "did you mean shuffled"]),
        ("adversarial: {beta2: 1}", ["adversarial.beta2=1.0", "below 1"]),
        ("adversarial: {learning_rate: 0}", ["adversarial.learning_rate=0.0", "above 0"]),
        ("train: {frozen_share: 2}", ["train.frozen_share=2.0", "0 to 1"]),
        ("model: {width: 15}", ["model.width=15", "even"]),
        ("run: {seed: 9223372036854775808}", ["run.seed=", "below 2^63"]),
        ("train: {epochs: 3, epochs: 5}", ["line 1: key epochs stands twice"]),
        ("lr: 1e-3", ["lr must be a section"]),
        ("epochs: 3", ["did you mean train.epochs?"]),
        ("mae: {size: tiny}", ["mae.size is a setting of train_mae.py"]),
        ("train: {weight_decay: 0.1}\nmodel: {width: 4}", ["train.weight_decay is a setting of train_mae.py"]),
        ("train: {weight_decay: 0.1}\nadversarial: {weight: 1}", ["train.weight_decay is a setting of train_mae.py"]),
        ("model: {width: 32, init: imagenet}", ["imagenet", "model.width=64"]),
        ("data: {dihedral: 3}", ["data.dihedral=3", "true or false"]),
        ("data: {gain: .nan}", ["data.gain=nan", "a number"]),
        ("[1, 2]", ["should hold a mapping"]),
        ("train: {epochs: 3", ["not YAML"]),
        ("a: !!python/object/apply:os.system [ls]", ["not YAML"]),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(tmp_path, text, names):
    with pytest.raises(Refused) as caught:
        load_config(SegmenterConfig, written(tmp_path, text))
    message = str(caught.value)
    assert "\n" not in message and all(name in message for name in names), message


@pytest.mark.parametrize(
    "typed, meant",
    [("train.epoch", "train.epochs"), ("epochs", "train.epochs"), ("train.seed", "run.seed"), ("device", "run.device"),
     ("train.lerning_rate", "train.learning_rate"), ("gan.weight", "adversarial.weight")],
)  # fmt: skip
def test_a_wrong_name_finds_the_setting_like_it(tmp_path, typed, meant):
    with pytest.raises(Refused, match=rf"there is no setting {typed}; did you mean {meant}\?"):
        load_config(SegmenterConfig, written(tmp_path, ""), [f"{typed}=1"])


@pytest.mark.parametrize("cls", [SegmenterConfig, PretrainConfig])
def test_every_number_has_bounds_and_every_default_lies_within(cls):
    assert flatten(config_from_flat(cls, flatten(cls()))) == flatten(cls())
    for key, value in flatten(cls()).items():
        if type(value) in (int, float):
            with pytest.raises(Refused, match=f"^{key}=-1: must .*, as "):
                config_from_flat(cls, {key: -1})


@pytest.mark.parametrize("key, wrong", [("data.gain", 1.0), ("supervision.min_coverage", 0.0), ("train.average", 1.0),
                                        ("adversarial.layers", 6), ("adversarial.blur_sigma", 0.0),
                                        ("model.width", 15), ("run.seed", 2**63), ("train.head_rate", 0.0),
                                        ("adversarial.beta2", 1.0)])  # fmt: skip
def test_bounds_are_open_or_closed(key, wrong):
    with pytest.raises(Refused, match=f"^{key}={wrong}: must "):
        config_from_flat(SegmenterConfig, {key: wrong})


def test_words_of_the_command_line_stay_as_they_were_typed(tmp_path):
    more = ["run.dir=010", "run.name=12:30", "data.regions=[01,010]", "train.channels_last=false", "train.epochs=1e1"]
    config = load_config(SegmenterConfig, written(tmp_path, "run: {seed: 1}"), more)
    assert (config.run.dir, config.run.name, config.data.regions) == ("010", "12:30", ("01", "010"))
    assert config.train.channels_last is False and config.train.epochs == 10


def test_a_mask_that_leaves_nothing_to_see_is_refused(tmp_path):
    with pytest.raises(Refused, match="mask_ratio=0.98"):
        load_config(PretrainConfig, written(tmp_path, "data: {crop_px: 64}"), ["mae.mask_ratio=0.98"])
    with pytest.raises(Refused, match="masks 1 of 1 patches of 32 px"):
        load_config(PretrainConfig, written(tmp_path, "data: {crop_px: 32}"), ["mae.mask_where=layers"])


def test_yaml_reads_a_bare_off_as_false_and_we_do_not(tmp_path):
    assert load_config(SegmenterConfig, written(tmp_path, "train: {precision: off}")).train.precision == "off"


def test_help_prints_every_setting_with_its_source():
    text = describe(SegmenterConfig)
    for cls in (SegmenterConfig, PretrainConfig):
        assert all(f"{key}=" in describe(cls) for key in flatten(cls()))
    assert "[paper, Sec. 4.6]" in text and "[paper silent; ours]" in text


def test_a_run_refuses_other_data_and_not_another_name():
    facts = {"bands": 2, "band_mean": [0.3, 5.0], "name": "set"}
    check_same_data({**facts, "name": "moved"}, facts, "tiles", "runs/x")
    with pytest.raises(Refused, match="band_mean.*choose another run.dir"):
        check_same_data({**facts, "band_mean": [0.4, 5.0]}, facts, "tiles", "runs/x")


def test_yaml_and_flat_forms_give_the_config_back(tmp_path):
    config = load_config(SegmenterConfig, written(tmp_path, "data: {root: x, regions: [a]}\nrun: {dir: y}"))
    assert load_config(SegmenterConfig, written(tmp_path, to_yaml(config))) == config
    again = config_from_flat(SegmenterConfig, flatten(config))
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


def test_a_cosine_run_that_is_extended_says_why_it_cannot_be(tmp_path):
    path, more = written(tmp_path, "train: {epochs: 5}"), ["train.schedule=cosine"]
    saved = flatten(load_config(SegmenterConfig, path, more))
    with pytest.raises(Refused, match=rf"runs/x.* train.epochs=5, not 6: by {more[0]} its rate fell towards 0"):
        check_resumable(saved, load_config(SegmenterConfig, path, [*more, "train.epochs=6"]), "runs/x")


def test_the_command_line_exits_with_2_and_one_line(tmp_path):
    command = [sys.executable, "train_seg.py", str(written(tmp_path, "train: {epoch: 3}"))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "train.epochs" in done.stderr


def test_a_setting_that_came_later_leaves_earlier_runs_resumable_at_its_default(tmp_path):
    config = SegmenterConfig()
    saved = {key: value for key, value in flatten(config).items() if key != "supervision.codes"}
    check_resumable(saved, config, "runs/x")
    with pytest.raises(Refused, match="supervision.codes=native, not merged"):
        check_resumable(saved, replace(config, supervision=replace(config.supervision, codes="merged")), "runs/x")


@pytest.mark.parametrize("word, value", [("true", True), ("True", True), ("false", False), ("FALSE", False)])
def test_yes_and_no_are_read_as_yaml_and_python_write_them(tmp_path, word, value):
    path = written(tmp_path, "")
    assert load_config(SegmenterConfig, path, [f"data.dihedral={word}"]).data.dihedral is value
    with pytest.raises(Refused, match="must be true or false, as data.dihedral=true"):
        load_config(SegmenterConfig, path, ["data.dihedral=2"])
