import re
import shutil
from importlib.util import find_spec

import numpy as np
import pytest
import tifffile
import torch
import torchvision
from commands import error_of, run_script
from made_runs import assert_same, by_one_and_two_processes, records, trained
from made_runs import settings as segmenter_settings
from PIL import Image

from data.loading import sample_index
from data.manifest import read_manifest
from data.transforms import crop_draw, draw
from data.unlabelled import PretrainingCrops, UnlabelledImages, ValidationCrops, common_facts, read_unlabelled
from models.pretrained import load_resnet18
from models.unet import UNet
from runtime.errors import Refused
from runtime.settings import check_same_data

SMALL = ["data.crop_px=64", "model.width=8", "train.batch_size=16", "train.epochs=1", "run.log_every=2"]
SMALL += ["data.workers=0", "train.eval_every=0"]


def settings(root, run_dir, *more):
    return ["configs/demo/mae.yaml", f"data.root={root}", f"run.dir={run_dir}", *SMALL, *more]


def pretrained(root, run_dir, *more):
    """train_mae.py in this process -> last.pt."""
    return trained(*settings(root, run_dir, *more))


@pytest.fixture(scope="module")
def mae_run(tile_set, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("mae") / "run"
    pretrained(tile_set, run_dir, "train.epochs=2")
    return run_dir


def test_a_run_leaves_its_encoder_its_record_and_a_picture(mae_run):
    names = {str(path.relative_to(mae_run)) for path in mae_run.rglob("*") if path.is_file()}
    expected = {"config.yaml", "log.jsonl", "last.pt", "best.pt", "resnet18.pt", "metrics.json"}
    curves = {"figures/curves.png"} if find_spec("matplotlib") else set()
    assert names == expected | {"figures/reconstruction.png"} | curves
    assert {record["kind"] for record in records(mae_run)} == {"train", "validation"}
    assert Image.open(mae_run / "figures/reconstruction.png").width > 3 * 64


def test_the_encoder_loads_into_torchvision_and_into_the_segmenter(tile_set, tmp_path):
    """test_unet.py compares their outputs."""
    pretrained(tile_set, tmp_path / "wide", "model.width=64", "train.batch_size=60")
    state = torch.load(tmp_path / "wide" / "resnet18.pt", weights_only=True)
    missing, unexpected = torchvision.models.resnet18().load_state_dict(state, strict=False)
    assert set(missing) == {"fc.weight", "fc.bias"} and not unexpected
    report = load_resnet18(UNet(3, 4, 64).encoder, state, "resnet18.pt")
    assert "0 missing []" in report and "0 unexpected []" in report


def test_the_segmenter_says_what_it_took_from_the_file(tile_set, mae_run, tmp_path):
    more = [f"model.init={mae_run / 'resnet18.pt'}", "train.epochs=1"]
    printed = run_script("train_seg.py", *segmenter_settings(tile_set, tmp_path / "run", *more))
    assert "120 tensors matched, 0 adapted [], 0 missing [], 0 unexpected []" in printed


def test_two_processes_and_micro_batches_equal_one(tile_set, tmp_path):
    one, two = by_one_and_two_processes(tmp_path, *settings(tile_set, tmp_path, "train.batch_size=20"))
    assert one["step"] == 4 and one["mae"]["head.weight"].dtype == torch.float64
    assert_same(one["mae"], two["mae"], "mae", 1e-8)


@pytest.fixture(scope="module")
def folder(real, tmp_path_factory):
    """A bare folder as it is distributed: images beside masks."""
    root = tmp_path_factory.mktemp("folder") / "tile 1"
    shutil.copytree(real / "dubai" / "Tile 1", root)
    return root


def test_a_bare_folder_of_real_images_is_read_and_the_glob_keeps_masks_out(folder):
    images, validation = read_unlabelled(folder, "images/*")
    assert len(images) + len(validation) == 9 and len(validation) == 1
    assert {path.parent.name for path in images.paths} == {"images"}
    assert not set(images.paths) & set(validation.paths)
    stored = torch.cat([images.load(i).flatten(1).double() for i in range(len(images))], dim=1)
    assert torch.allclose(stored.mean(dim=1), torch.tensor(images.facts["band_mean"], dtype=torch.float64))
    std = torch.tensor(images.facts["band_std"], dtype=torch.float64)
    assert torch.allclose(stored.std(dim=1, correction=0), std)


def test_crops_are_of_one_size_differ_by_position_and_repeat_by_key(folder):
    images, validation = read_unlabelled(folder, "images/*")
    samples = PretrainingCrops([images], 64, 16, min_area=0.2, batch_size=4, seed=0)
    first, again, other = samples[0, 1], samples[0, 1], samples[0, 2]
    assert first["image"].shape == (3, 64, 64) and first["noise"].shape == (16,)
    assert torch.equal(first["image"], again["image"]) and torch.equal(first["noise"], again["noise"])
    assert not torch.equal(first["noise"], other["noise"])
    fixed = ValidationCrops([validation], 64, 16)
    assert torch.equal(fixed[0]["noise"], fixed[0]["noise"])
    for position in range(200):
        top, left, height, width = crop_draw(draw(0, 0, position), 100, 150, 0.2)
        assert 0 <= top <= 100 - height and 0 <= left <= 150 - width
        assert height * width >= 0.19 * 100 * 150 and 0.7 < width / height < 1.4


def test_crops_of_no_least_area_are_cut_out_of_the_image_as_it_is(tile_set):
    images, _ = read_unlabelled(tile_set)
    samples, places = PretrainingCrops([images], 32, 4, min_area=0, batch_size=4, seed=0), set()
    for position in range(12):
        image = images.normalize(images.load(sample_index(0, 0, position, 4, len(images)))).numpy()
        crop = samples[0, position]["image"].numpy()
        windows = np.lib.stride_tricks.sliding_window_view(image, (32, 32), axis=(1, 2))  # (K, rows, cols, 32, 32)
        found = []
        for view in (crop, crop[:, ::-1], crop[:, :, ::-1], crop[:, ::-1, ::-1]):  # mirrored at random
            found += np.argwhere((windows == view[:, None, None]).all(axis=(0, 3, 4))).tolist()
        assert crop.shape == (3, 32, 32) and len(found) == 1
        places.add(tuple(found[0]))
    assert len(places) > 8


def test_exemplars_places_join_the_training_and_tested_images_are_not_read(tile_set, tmp_path):
    root = tmp_path / "set"
    shutil.copytree(tile_set, root)
    rows = read_manifest(root)[1]
    for row in rows:
        if row["split"] == "test" or row["region"] == "coast":
            (root / row["image"]).unlink()
    for heldout in (False, True):
        images, validation = read_unlabelled(root, exclude_regions=("coast",), heldout=heldout)
        splits = ("train", "heldout") if heldout else ("train",)
        of = {s: {root / row["image"] for row in rows if row["split"] == s and row["region"] != "coast"}
              for s in ("train", "heldout", "validation")}  # fmt: skip
        assert set(images.paths) == set.union(*(of[split] for split in splits)) and images.paths == sorted(images.paths)
        assert set(validation.paths) == of["validation"] and of["heldout"]
        pixels = np.stack([images.load(i).numpy() for i in range(len(images))]).astype(float)
        assert images.facts["band_mean"] == pytest.approx(pixels.mean(axis=(0, 2, 3)).tolist())
        assert images.facts["band_std"] == pytest.approx(pixels.std(axis=(0, 2, 3)).tolist())
    pretrained(root, tmp_path / "run", "data.exclude_regions=[coast]", "data.heldout=true", "train.batch_size=80")


def test_an_alpha_band_of_a_bare_folder_is_no_band_until_its_number_is_said(tmp_path):
    rng = np.random.default_rng(0)
    arrays = [rng.integers(1, 255, (32, 32, 4), np.uint8) for _ in range(3)]
    for i, array in enumerate(arrays):
        array[:10, :, 3] = 0  # transparent: what lies below was never photographed
        tifffile.imwrite(tmp_path / f"{i}.tif", array, photometric="rgb", extrasamples=["unassalpha"])
    with pytest.raises(Refused, match="1.tif: band 4 of 4 is tagged alpha; data.bands=3 uses it as the mask of valid"):
        read_unlabelled(tmp_path)
    with pytest.raises(Refused, match=r"1.tif: has 4 bands, not 2 \(data.bands\)"):
        read_unlabelled(tmp_path, bands=2)
    images, _ = read_unlabelled(tmp_path, bands=4)
    assert torch.equal(images.load(0), torch.from_numpy(arrays[1].transpose(2, 0, 1)))
    images, _ = read_unlabelled(tmp_path, bands=3)
    assert images.facts["bands"] == 3 and images.load(0).shape == (3, 32, 32)
    assert torch.equal(images.load(0)[:, :10], images.load(0)[:, 10:11].expand(3, 10, 32))  # the nearest stands in
    assert torch.equal(images.load(0)[:, 10:], torch.from_numpy(arrays[1][10:, :, :3].transpose(2, 0, 1)))
    seen = np.concatenate([arrays[i][10:, :, :3].reshape(-1, 3) for i in (1, 2)]).astype(float)  # 0 validates
    assert images.facts["band_mean"] == pytest.approx(seen.mean(axis=0).tolist())


def renamed(images, name):
    return UnlabelledImages(images.paths, {**images.facts, "name": name}, images.dtype)


def test_several_sets_take_turns_and_each_is_normalised_by_its_own_statistics(tile_set, folder, tmp_path):
    sets, validation = zip(*(read_unlabelled(root, "images/*") for root in (tile_set, folder)), strict=True)
    samples = PretrainingCrops(sets, 64, 16, min_area=0, batch_size=3, seed=0)
    for turn in range(2 * len(sets[1])):
        images = sets[turn % 2]
        image = images.normalize(images.load(sample_index(0, 0, turn // 2, 3, len(images))))
        crop = samples[divmod(turn, 3)]["image"]
        assert torch.isin(crop, image).all() and not torch.isin(crop, sets[1 - turn % 2].load(0)).any()
    scored = ValidationCrops(validation, 64, 16)
    assert [scored[i]["set"] for i in range(len(scored))] == [0] * len(validation[0]) + [1] * len(validation[1])
    facts = common_facts(sets)
    assert facts["images"] == sum(map(len, sets)) and {"name": "tile 1", **facts["more"][0]} == sets[1].facts
    assert facts["band_mean"] == sets[0].facts["band_mean"] and "tile 1" in facts["name"]
    assert "more" not in common_facts(sets[:1])
    masked = ["mae.mask_where=layers", "mae.stages=all", "mae.targets=band", "data.images=images/*"]
    state = pretrained(tile_set, tmp_path / "run", f"data.more_roots=[{folder}]", "train.batch_size=80", *masked)
    assert state["data"]["more"][0]["band_mean"] != state["data"]["band_mean"]
    images, _ = read_unlabelled(folder, "images/*")
    check_same_data(facts, common_facts([sets[0], renamed(images, "moved")]), tile_set, "runs/x")
    images.facts["bands"] = 4
    for name in ("tile 1", sets[0].facts["name"]):  # bare folders, above all, may have one name
        with pytest.raises(Refused, match=f"differ in bands: 3 as in .*, 4 as in {re.escape(str(images.paths[0]))}"):
            common_facts([sets[0], renamed(images, name)])


def test_bad_input_is_one_line_each(tile_set, folder, tmp_path):
    assert "crop_px=96" in error_of("train_mae.py", *settings(tile_set, tmp_path / "a", "data.crop_px=96"))
    assert "for batch norm" in error_of("train_mae.py", *settings(tile_set, tmp_path / "d", "train.batch_size=1"))
    (tmp_path / "empty").mkdir()
    bare = "data.heldout=false", "data.images=images/*"
    assert "0 images" in error_of("train_mae.py", *settings(tmp_path / "empty", tmp_path / "b", *bare))
    Image.new("L", (80, 80)).save(folder / "images" / "image_part_000.png")
    line = error_of("train_mae.py", *settings(folder, tmp_path / "c", *bare))
    assert "bands" in line and "image_part_00" in line
