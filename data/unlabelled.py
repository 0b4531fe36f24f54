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
from data.pictures import PICTURES
from data.tile_io import TIFFS
from data.transforms import crop_draw, draw
from data.voids import input_bands
from runtime.errors import Refused


def read_unlabelled(
    root, pattern="**/*", bands=0, validation_share=0.05, regions=(), exclude_regions=(), heldout=False
):
    """-> (training, validation) UnlabelledImages of a tile set or of a bare folder.

    root:    a tile set, of which `regions` and `exclude_regions` choose tiles; or a bare folder, of which `pattern`, a
             glob, admits the images and every 1 / validation_share-th of them is kept for validation; `bands`: as in
             data.voids.input_bands
    heldout: train on the images of a tile set's split heldout too
    """
    root = Path(root)
    if (root / "dataset.yaml").exists():
        description, rows = read_manifest(root)
        splits = {"validation": [], "train": [], **({"heldout": []} if heldout else {})}
        for split, paths in splits.items():
            paths += (root / row["image"] for row in chosen_rows(root, rows, split, regions, exclude_regions))
        validation, train = splits.pop("validation"), sorted(sum(splits.values(), []))
        bands, dtype, name = description.bands, description.dtype, description.name
        mean, std = description.band_mean, description.band_std
        if regions or exclude_regions or heldout:  # an image of another region is not even counted
            mean, std = band_statistics(train, bands)
    else:
        if not root.is_dir():
            raise Refused(f"{root}: is no folder; data.root is a tile set or a folder of images")
        if regions or exclude_regions or heldout:
            mend = "leave data.regions, data.exclude_regions and data.heldout out"
            raise Refused(f"{root}: is a bare folder and has no regions and no splits; {mend}")
        try:
            found = sorted(p for p in root.glob(pattern) if p.suffix.lower() in TIFFS + PICTURES)
        except (ValueError, NotImplementedError):
            raise Refused(f"data.images={pattern}: is no glob below {root}; as **/images/*") from None
        if len(found) < 2:
            few = f"{len(found)} images (.tif, .png, .jpg) match data.images={pattern}"
            raise Refused(f"{root}: {few}; two are the least")
        every = round(1 / validation_share)
        validation = found[every // 2 :: every] or found[:1]
        train = sorted(set(found) - set(validation))
        first = tile_io.read(train[0], pixels=False, indices=False)
        bands, dtype, name = input_bands(first, bands, "data.bands="), str(first.dtype), root.name
        mean, std = band_statistics(train, bands)
    # Which labels a tile set has, and how coarse they are, is nothing to pretraining.
    facts = {"name": name, "bands": bands, "band_mean": list(mean), "band_std": list(std)}
    return UnlabelledImages(train, facts, dtype), UnlabelledImages(validation, facts, dtype)


class UnlabelledImages:
    """Some images and what is common to them: facts {"name", "bands", "band_mean", "band_std"}."""

    def __init__(self, paths, facts, dtype):
        self.paths, self.facts, self.dtype = paths, facts, dtype

    def __len__(self):
        return len(self.paths)

    def load(self, i, crop_px=1):
        """Image i, (K, H, W) as stored, void pixels filled; uint16 as int32. raises: Refused where no crop fits it"""
        image = tile_io.read(self.paths[i], indices=False)
        pixels, _ = image.image(input_bands(image, self.facts["bands"], "data.bands="))
        if str(image.dtype) != self.dtype:
            raise Refused(f"{self.paths[i]}: has pixels of {image.dtype}, the others {self.dtype}")
        if min(image.size) < crop_px:
            height, width = image.size
            mend = f"at most data.crop_px={min(image.size) // 32 * 32} fits it"
            raise Refused(f"{self.paths[i]}: is {height} x {width} px, smaller than data.crop_px={crop_px}; {mend}")
        return to_tensor(pixels.transpose(2, 0, 1))


class PretrainingCrops(Dataset):
    """Random crops, mirrored at random, each with the noise that draws its mask; keys are (step, position).

    min_area: least share of the image that a crop takes before it is resized; 0: crops at the image's own scale
    """

    def __init__(self, images, crop_px, tokens, *, min_area, batch_size, seed):
        self.images, self.crop_px, self.tokens = images, crop_px, tokens
        self.min_area, self.batch_size, self.seed = min_area, batch_size, seed

    def __getitem__(self, key):
        step, position = key
        i = sample_index(self.seed, step, position, self.batch_size, len(self.images))
        image = self.images.load(i, self.crop_px)
        rng = draw(self.seed, step, position)
        if self.min_area:
            crop = tv.resized_crop(image.float(), *crop_draw(rng, *image.shape[1:], self.min_area), [self.crop_px] * 2)
        else:
            top, left = (int(rng.integers(side - self.crop_px + 1)) for side in image.shape[1:])
            crop = tv.crop(image.float(), top, left, self.crop_px, self.crop_px)
        for axis in (1, 2):
            if rng.random() < 0.5:
                crop = crop.flip(axis)
        return {"image": crop, "noise": torch.from_numpy(rng.random(self.tokens, dtype=np.float32))}

    collate = staticmethod(torch.utils.data.default_collate)


class ValidationCrops(Dataset):
    """The middle of each image, with the same mask each time."""

    def __init__(self, images, crop_px, tokens):
        self.images, self.crop_px, self.tokens = images, crop_px, tokens

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        image = self.images.load(i, self.crop_px)
        noise = draw(0, 0, i).random(self.tokens, dtype=np.float32)
        return {"image": tv.center_crop(image, [self.crop_px] * 2).float(), "noise": torch.from_numpy(noise)}

    collate = staticmethod(torch.utils.data.default_collate)
