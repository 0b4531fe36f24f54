"""Images without labels, for pretraining (Sec. 3.2, 4.5): a tile set's, or any folder's -> crops and mask noise."""

from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional as tv

from data import tile_io
from data.band_statistics import band_statistics
from data.loading import sample_index, to_tensor
from data.manifest import chosen_rows, read_manifest
from data.transforms import crop_draw, draw, normalize
from data.voids import filled, input_bands
from runtime.errors import Refused, naming, require


def read_unlabelled(root, pattern="**/*", bands=0, regions=(), exclude_regions=(), heldout=False):
    """-> (training, validation) UnlabelledImages of a tile set or of a bare folder.

    root:    a tile set, of which `regions` and `exclude_regions` choose tiles; or a bare folder, of which `pattern`, a
             glob, admits the images and every twentieth of them is kept for validation; `bands`: as in
             data.voids.input_bands
    heldout: train on the images of a tile set's split heldout too
    """
    root, of_set = Path(root), (Path(root) / "dataset.yaml").exists()
    if of_set:
        description, rows = read_manifest(root)
        bands, dtype, name = description.bands, description.dtype, description.name
        mean, std = description.band_mean, description.band_std

        def images(*splits):
            places = regions, exclude_regions
            return [root / row["image"] for split in splits for row in chosen_rows(root, rows, split, *places)]

        validation, train = images("validation"), sorted(images("train", "heldout") if heldout else images("train"))
    else:
        if regions or exclude_regions:
            raise Refused(f"{root}: a bare folder has no regions; leave data.regions and data.exclude_regions empty")
        with naming(f"data.images={pattern}"):
            found = sorted(p for p in root.glob(pattern) if p.suffix.lower() in tile_io.TIFFS + tile_io.PICTURES)
        few = f"{len(found)} images (.tif, .png, .jpg) match data.images={pattern}"
        require(len(found) >= 2, f"{root}: {few}; two are the least")
        validation = found[10::20] or found[:1]  # [paper silent; ours]
        train = sorted(set(found) - set(validation))
        first = tile_io.read(train[0], pixels=False, indices=False)
        bands, dtype, name = input_bands(first, bands, "data.bands="), str(first.dtype), root.name
    if not of_set or regions or exclude_regions or heldout:  # an image of another region is not even counted
        mean, std = band_statistics(train, bands)
    # Which labels a tile set has, and how coarse they are, is nothing to pretraining.
    facts = {"name": name, "bands": bands, "band_mean": list(mean), "band_std": list(std)}
    return UnlabelledImages(train, facts, dtype), UnlabelledImages(validation, facts, dtype)


def common_facts(sets):
    """Facts of several UnlabelledImages: those of the first one, under all names; `more`: of each other one, without
    its name, which may change; `images`: how many all have. raises: Refused if they differ in bands"""
    names, bands = ([images.facts[key] for images in sets] for key in ("name", "bands"))
    listed = ", ".join(f"{count} as in {images.paths[0]}" for images, count in zip(sets, bands, strict=True))
    require(len(set(bands)) == 1, f"data.more_roots: the sets differ in bands: {listed}")
    first, *more = [{key: value for key, value in images.facts.items() if key != "name"} for images in sets]
    facts = {"name": " and ".join(names), **first, "images": sum(map(len, sets))}
    return {**facts, "more": more} if more else facts


class UnlabelledImages:
    """Some images and what is common to them: facts {"name", "bands", "band_mean", "band_std"}."""

    def __init__(self, paths, facts, dtype):
        self.paths, self.facts, self.dtype = paths, facts, dtype

    def __len__(self):
        return len(self.paths)

    def load(self, i, crop_px=1):
        """Image i, (K, H, W) as stored, void pixels filled; uint16 as int32. raises: Refused where no crop fits it"""
        image = tile_io.read(self.paths[i], indices=False)
        pixels = filled(*image.seen(input_bands(image, self.facts["bands"], "data.bands=")))
        if str(image.dtype) != self.dtype:
            raise Refused(f"{self.paths[i]}: has pixels of {image.dtype}, the others {self.dtype}")
        if min(image.size) < crop_px:
            height, width = image.size
            raise Refused(f"{self.paths[i]}: is {height} x {width} px, smaller than data.crop_px={crop_px}")
        return to_tensor(pixels.transpose(2, 0, 1))

    def normalize(self, image):
        """(K, H, W) as stored -> zero mean and unit deviation per band, by this set's own statistics."""
        mean, std = (torch.tensor(self.facts[key]) for key in ("band_mean", "band_std"))
        return normalize(image[None], mean, std)[0]


class PretrainingCrops(Dataset):
    """Random crops, normalised, mirrored at random, each with the noise that draws its mask; keys: (step, position).

    sets: list of UnlabelledImages, which take turns
    min_area: least share of the image that a crop takes before it is resized; 0: crops at the image's own scale
    """

    def __init__(self, sets, crop_px, tokens, *, min_area, batch_size, seed):
        self.sets, self.crop_px, self.tokens = sets, crop_px, tokens
        self.min_area, self.batch_size, self.seed = min_area, batch_size, seed

    def __getitem__(self, key):
        step, position = key
        turn, which = divmod(step * self.batch_size + position, len(self.sets))
        images = self.sets[which]
        image = images.load(sample_index(self.seed, 0, turn, self.batch_size, len(images)), self.crop_px)
        rng = draw(self.seed, step, position)
        if self.min_area:
            crop = tv.resized_crop(image.float(), *crop_draw(rng, *image.shape[1:], self.min_area), [self.crop_px] * 2)
        else:
            top, left = (int(rng.integers(side - self.crop_px + 1)) for side in image.shape[1:])
            crop = tv.crop(image.float(), top, left, self.crop_px, self.crop_px)
        for axis in (1, 2):
            if rng.random() < 0.5:
                crop = crop.flip(axis)
        noise = torch.from_numpy(rng.random(self.tokens, dtype=np.float32))
        return {"image": images.normalize(crop), "noise": noise}

    collate = staticmethod(torch.utils.data.default_collate)


class ValidationCrops(Dataset):
    """The middle of each image, normalised, with the same mask each time; set: in a sample, which set it is of."""

    def __init__(self, sets, crop_px, tokens):
        self.sets, self.crop_px, self.tokens = sets, crop_px, tokens
        self.places = [(which, i) for which, images in enumerate(sets) for i in range(len(images))]

    def __len__(self):
        return len(self.places)

    def __getitem__(self, i):
        which, place = self.places[i]
        images = self.sets[which]
        image = images.load(place, self.crop_px)
        noise = torch.from_numpy(draw(0, 0, i).random(self.tokens, dtype=np.float32))
        crop = tv.center_crop(image, [self.crop_px] * 2).float()
        return {"image": images.normalize(crop), "noise": noise, "set": which}

    collate = staticmethod(torch.utils.data.default_collate)
