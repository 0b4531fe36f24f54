"""Made-up aerial images at 1 m and their land cover: what tile_set.py makes tiles of.

Shapes are painted on a map of materials, so the label is exact; town.py paints what people build. Light comes
after: trees and roofs cast shadows, and each landscape has its sun, season and haze, so that a colour alone does not
tell the class.
"""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from data.coarse import BARREN, BUILT, GRASS, ROAD, TREE, WATER, padded_mean
from data.synthetic.town import GRAVEL, LAWNS, PAVING, SAND, Frame, Ground, paint_farm, paint_town, pick


@dataclass(frozen=True)
class Region:
    """What a tile holds: chances, but for `wood` and `field_m` [paper silent; ours]."""

    sea: float
    lake: float
    river: float
    road: float
    town: float
    wood: float  # mean share of the tile
    hedge: float  # of each boundary between parcels
    field_m: float  # side of a parcel


REGIONS = {
    "coast": Region(sea=0.6, lake=0.2, river=0.3, road=0.5, town=0.4, wood=0.25, hedge=0.08, field_m=70),
    "hills": Region(sea=0.0, lake=0.35, river=0.6, road=0.4, town=0.1, wood=0.5, hedge=0.08, field_m=80),
    "farmland": Region(sea=0.0, lake=0.3, river=0.45, road=0.7, town=0.15, wood=0.15, hedge=0.15, field_m=70),
    "suburb": Region(sea=0.0, lake=0.35, river=0.2, road=0.4, town=0.85, wood=0.2, hedge=0.08, field_m=60),
}

# Reflectance of each material: red, green, blue, near infrared.
FIELDS = [
    (98, 128, 66, 178), (112, 132, 74, 165), (134, 140, 86, 148), (156, 150, 96, 140), (188, 164, 108, 146),
    (86, 122, 62, 172), (140, 110, 78, 102), (116, 90, 66, 82), (176, 150, 114, 142), (146, 130, 88, 118),
]  # fmt: skip
WATERS = [
    (34, 46, 48, 10), (40, 54, 58, 11), (46, 68, 74, 12), (52, 74, 80, 14), (62, 84, 84, 16), (84, 94, 78, 24),
    (62, 78, 58, 30),
]  # fmt: skip
SHALLOWS = (112, 112, 86, 40)
FLOOR = (66, 66, 48, 84)
# Trees by season: greens, the turning of leaves, bare crowns; conifers stay.
SEASONS = [
    [(60, 88, 48, 172), (72, 98, 54, 182), (52, 78, 46, 160), (42, 64, 46, 112)],
    [(84, 110, 58, 186), (74, 102, 56, 180), (94, 106, 66, 160), (44, 66, 48, 114)],
    [(150, 120, 62, 150), (146, 98, 62, 140), (104, 108, 58, 150), (48, 68, 48, 112)],
    [(118, 110, 92, 104), (128, 117, 100, 110), (106, 100, 84, 98), (50, 68, 50, 108)],
]


def landscape(rng, size_px, bands=3, region=REGIONS["farmland"]):
    """A made-up aerial image at 1 m and its land cover.

    returns: image (H, W, bands) uint8: red, green, blue and, of four, near infrared; high (H, W) uint8 Chesapeake codes
    """
    ground = Ground(rng, size_px)
    frame = Frame(rng, size_px, bend_m=rng.choice([0, 2, 6]))
    u, v = frame.of_pixels(size_px)
    bearing = rng.uniform(0.6, 2.5)  # of the sun in the image: from the south-east to the south-west
    sun = np.array([math.cos(bearing), math.sin(bearing)])
    density = np.full((size_px, size_px), 0.0002)  # of trees: their number a pixel
    water, bank = _water(rng, size_px, region)

    # Fields: parcels of one crop each, with furrows along one of their sides.
    parcels, count = _parcels(rng, u, v, region.field_m)
    crops = [ground.material(GRASS, pick(rng, FIELDS), 0.05) for _ in range(count)]
    ground.image.paste(Image.fromarray(np.array(crops, np.int32)[parcels]))
    furrow = rng.choice([0, 0, 0.025, 0.05, 0.1], count)[parcels] * _furrows(rng, u, v, count, parcels)
    wood = _threshold(_noise(rng, size_px, 80, 3.0), np.clip(rng.normal(region.wood, 0.2), 0, 0.9))
    wood |= (rng.random(count) < 0.4 * region.wood)[parcels]
    right, below = np.roll(parcels, -1, 1), np.roll(parcels, -1, 0)
    hedged = rng.random((count, count)) < region.hedge
    hedge = ((parcels != right) & hedged[parcels, right]) | ((parcels != below) & hedged[parcels, below])
    hedge[-1:], hedge[:, -1:] = False, False  # np.roll goes round

    # Towns: a street grid with lots, houses and yards.
    if rng.random() < region.town:
        town = _threshold(_noise(rng, size_px, 90, 2.0), rng.uniform(0.4, 1.0)) & ~_grown(water, 9)
        ground.fill(town, ground.material(GRASS, pick(rng, LAWNS), 0.08))
        furrow[town], hedge[town], density[town] = 0, False, rng.uniform(0.0003, 0.003)
        wood &= ~town | (rng.random() < 0.2)
        paint_town(rng, ground, frame, town, sun)

    # Country roads, over water too; now and then a farm.
    roads = int(rng.random() < region.road) + int(rng.random() < region.road / 3)
    paths = [(_meander(rng, size_px, 0.015), rng.choice([3, 4, 5, 6, 9])) for _ in range(roads)]
    for path, width_m in paths:
        ground.line(path, width_m + 3, ground.material(GRASS, pick(rng, FIELDS), 0.08))
    ground.fill(bank, ground.material(*((BARREN, SAND) if rng.random() < 0.5 else (GRASS, FIELDS[2]))))
    ground.fill(water, ground.material(WATER, pick(rng, WATERS), 0.02))
    for path, width_m in paths:
        ground.line(path, width_m, ground.material(ROAD, GRAVEL if width_m == 3 else pick(rng, PAVING), 0.03))
    if rng.random() < 0.25:
        paint_farm(rng, ground, frame, rng.uniform(-0.4, 0.4, 2) * size_px, sun)

    # Trees last: their crowns hang over all else.
    floor = ground.material(TREE, FLOOR, 0.15)
    ids = np.array(ground.image)
    clear = water | _grown(np.isin(ground.lookup("code")[ids], (BUILT, ROAD)), 2)
    wood &= ~clear
    density[wood], density[hedge], density[bank] = 0.06, 0.35, rng.choice([0.0005, 0.05])
    canopy, crown = _crowns(rng, (rng.random(density.shape) < density) & ~clear)
    open_ground = _grown(~_grown(crown >= 0, 3), 3)
    ids[~open_ground & wood] = floor  # small gaps between crowns are forest
    image = _lit(rng, ground, ids, canopy, crown, furrow, sun)
    return image[..., :bands], np.where(crown >= 0, TREE, ground.lookup("code")[ids]).astype(np.uint8)


def _noise(rng, size_px, coarsest_px, slope):
    """A random field of mean 0 and deviation 1; the steeper the spectrum's slope, the smoother."""
    n = size_px + max(16, size_px // 4)  # the field closes on itself: cut the seam away
    y, x = np.fft.fftfreq(n)[:, None], np.fft.rfftfreq(n)
    spectrum = np.fft.rfft2(rng.standard_normal((n, n))) / (y * y + x * x + coarsest_px**-2) ** (slope / 2)
    field = np.fft.irfft2(spectrum, (n, n))[:size_px, :size_px]
    return (field - field.mean()) / field.std()


def _threshold(field, share):
    return field > np.quantile(field, 1 - share)


def _grown(mask, px):
    return np.asarray(Image.fromarray(mask.astype(np.uint8)).filter(ImageFilter.MaxFilter(2 * px + 1))) > 0


def _blurred(array, px):
    """Soft edges: a mask, values 0 to 1, blurred by a Gaussian."""
    return np.asarray(Image.fromarray((array * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(px))) / 255.0


def _meander(rng, size_px, wiggle):
    """A winding path across the tile: points 3 m apart."""
    heading = rng.uniform(0, 2 * math.pi)
    middle = size_px * (0.5 + rng.uniform(-0.35, 0.35, 2))
    steps = size_px // 2
    turns = np.convolve(rng.normal(0, wiggle, 2 * steps + 24), np.hanning(25), "valid")
    bearing = heading + np.cumsum(turns) - np.cumsum(turns)[steps]
    bearing = heading + 1.2 * np.tanh((bearing - heading) / 1.2)  # never back
    points = 3 * np.cumsum(np.stack([np.cos(bearing), np.sin(bearing)], 1), 0)
    return points - points[steps] + middle


def _water(rng, size_px, region):
    """Masks of open water and of the bank along it."""
    water = np.zeros((size_px, size_px), bool)
    if rng.random() < region.sea:
        y, x = np.mgrid[:size_px, :size_px] / size_px - 0.5
        bearing = rng.uniform(0, 2 * math.pi)
        slope = 3 * (math.cos(bearing) * x + math.sin(bearing) * y)
        water |= slope + 0.4 * _noise(rng, size_px, 60, 2.4) > rng.uniform(-0.7, 0.8)
    if rng.random() < region.lake:
        water |= _threshold(_noise(rng, size_px, 90, 3.0), rng.uniform(0.04, 0.35))
    if rng.random() < region.river:
        stream = Image.new("1", (size_px, size_px))
        draw, path = ImageDraw.Draw(stream), _meander(rng, size_px, 0.03)
        radii = rng.choice([2.5, 6, 11, 16]) * np.exp(0.2 * np.cumsum(rng.normal(0, 0.2, len(path))).clip(-2, 2))
        for (x, y), r in zip(path, radii, strict=True):
            draw.ellipse((x - r, y - r, x + r, y + r), fill=1)
        draw.line([tuple(p) for p in path], fill=1, width=max(1, int(2 * radii.min())))
        water |= np.asarray(stream)
    bank = _grown(water, 4) & (_noise(rng, size_px, 40, 2.2) > rng.uniform(-0.5, 1.5))
    return water, bank & ~water


def _parcels(rng, u, v, side_m):
    """Rectangles in (u, v) halved at random until small enough: (H, W) their numbers, and how many."""
    parcels, count, open_ = np.zeros(u.shape, np.intp), 0, [(u.min(), v.min(), u.max(), v.max())]
    while open_:
        u0, v0, u1, v1 = open_.pop()
        if max(u1 - u0, v1 - v0) < side_m * rng.uniform(0.8, 2.0):
            parcels[(u >= u0) & (u <= u1) & (v >= v0) & (v <= v1)] = count
            count += 1
            continue
        cut = rng.uniform(0.3, 0.7)
        if u1 - u0 > v1 - v0:
            cut = u0 + cut * (u1 - u0)
            open_ += [(u0, v0, cut, v1), (cut, v0, u1, v1)]
        else:
            cut = v0 + cut * (v1 - v0)
            open_ += [(u0, v0, u1, cut), (u0, cut, u1, v1)]
    return parcels, count


def _furrows(rng, u, v, count, parcels):
    """Waves of 2.5 to 7 m across each parcel, and wheel tracks every 12 to 20 m."""
    across = np.where((rng.random(count) < 0.5)[parcels], u, v) + 0.4 * _noise(rng, len(u), 30, 1.5)
    waves = np.sin(2 * math.pi * across / rng.uniform(2.5, 7, count)[parcels])
    return waves - 2.5 * ((across % rng.uniform(12, 20, count)[parcels]) < 1.2)


def _crowns(rng, sites):
    """Trees at each site: height of the canopy in metres, and the number of the crown over each pixel, -1 for none."""
    canopy, crown = np.zeros(sites.shape), np.full(sites.shape, -1)
    ragged = 0.15 * _noise(rng, len(sites), 6, 1.4)
    y, x = np.indices(sites.shape)
    rows, cols = np.nonzero(sites)
    radii = rng.lognormal(math.log(4.0), 0.25, len(rows)).clip(2, 7)
    for i, (row, col, radius) in enumerate(zip(rows, cols, radii, strict=True)):
        reach = np.s_[max(0, row - 7) : row + 8, max(0, col - 7) : col + 8]
        slack = 1 - ((y[reach] - row) ** 2 + (x[reach] - col) ** 2) / radius**2 + ragged[reach]
        dome = 2.0 + radius * (1.2 + np.sqrt(slack.clip(0, 1)))
        over = (slack > 0) & (dome > canopy[reach])
        canopy[reach][over] = dome[over]
        crown[reach][over] = i
    return canopy, crown


def _lit(rng, ground, ids, canopy, crown, furrow, sun):
    """Colours under one sun, season and sky: (H, W, 4) uint8."""
    size_px = len(ids)
    codes, color, grain = (ground.lookup(key)[ids] for key in ("code", "color", "grain"))
    fine, middle, broad = (_noise(rng, size_px, px, slope) for px, slope in ((3, 0.6), (14, 1.2), (70, 1.6)))
    color *= (1 + grain * (0.7 * fine + 0.8 * middle) + 0.04 * broad * (codes != WATER))[..., None]
    color *= (1 + furrow * (codes == GRASS))[..., None]
    dry = (0.6 * broad + 0.5 * middle + rng.normal(0, 0.7)) * (codes == GRASS)
    color += dry[..., None] * [9, 4, 3, -9]

    water = codes == WATER
    shallow = ((1 - _blurred(water, 3)) * 1.6 * rng.uniform(0.2, 1)).clip(0, 0.8)[..., None]
    ripples = 1 + rng.choice([0.02, 0.06]) * fine + 0.08 * broad
    surface = ((1 - shallow) * color + shallow * np.array(SHALLOWS)) * ripples[..., None]
    color = np.where(water[..., None], surface, color)

    season = SEASONS[rng.choice(4, p=(0.5, 0.4, 0.07, 0.03))]  # mostly summer
    kinds = np.array(season)[rng.choice(4, crown.max() + 2, p=rng.dirichlet([0.8] * 4))]
    kinds = kinds * rng.normal(1, 0.12, (len(kinds), 1)) + rng.normal(0, 3.5, kinds.shape)
    leaves = kinds[crown] * (1 + 0.16 * fine + 0.05 * middle + 0.08 * broad)[..., None]
    color = np.where((crown >= 0)[..., None], leaves, color)

    # Sun on the crowns, and the shadows of crowns and roofs.
    slope_y, slope_x = np.gradient(padded_mean(canopy))
    shade = 1 - 0.4 * np.tanh(0.9 * (slope_x * sun[0] + slope_y * sun[1])) * (crown >= 0)
    height = np.maximum(canopy, ground.lookup("height_m")[ids])
    climb, far = rng.uniform(0.7, 1.6), 14
    edged, shadow = np.pad(height, far, mode="edge"), np.zeros_like(height)
    for step in range(1, far + 1):
        dx, dy = np.rint(step * sun).astype(int)
        caster = edged[far + dy : far + dy + size_px, far + dx : far + dx + size_px]
        shadow = np.maximum(shadow, (caster - height - climb * step).clip(0, 1.5) / 1.5)
    sky = np.array([0.46, 0.51, 0.6, 0.4]) * rng.uniform(0.85, 1.2)
    color *= shade[..., None] * (1 - _blurred(shadow, 0.6)[..., None] * (1 - sky))

    # The camera: haze, colour balance, contrast, optics, noise.
    haze = rng.uniform(0, 0.1)
    color = (1 - haze) * color * rng.normal(1.06, 0.05) * rng.normal(1, 0.02, 4) + haze * np.array([165, 178, 190, 150])
    color = 255 * (color.clip(0, 255) / 255) ** math.exp(rng.normal(0, 0.07))
    color = padded_mean(color, rng.uniform(0.08, 0.16)) + rng.normal(0, rng.uniform(1, 2.5), color.shape)
    return np.rint(color.clip(0, 255)).astype(np.uint8)
