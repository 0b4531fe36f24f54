"""Streets, lots, houses, yards and farms, painted on a map of materials: a part of data/synthetic/landscape.py."""

import itertools
import math

import numpy as np
from PIL import Image, ImageDraw

from data.coarse import BARREN, BUILT, GRASS, ROAD

# Reflectance of each material: red, green, blue, near infrared.
LAWNS = [(98, 126, 68, 170), (112, 132, 76, 160), (136, 136, 88, 142), (88, 116, 60, 165)]
ROOFS = [
    (122, 120, 122, 106), (96, 94, 98, 76), (166, 154, 140, 142), (150, 102, 86, 122), (206, 204, 202, 190),
    (104, 116, 112, 108), (112, 122, 138, 112), (140, 134, 128, 120),
]  # fmt: skip
PAVING = [(120, 120, 124, 98), (150, 149, 148, 128), (184, 181, 174, 166), (104, 104, 110, 80)]
GRAVEL, SAND, EARTH = (178, 166, 146, 158), (200, 184, 152, 184), (166, 138, 110, 142)
CARS = [(225, 225, 225, 215), (40, 42, 46, 40), (120, 124, 130, 110), (130, 50, 45, 90), (60, 75, 110, 60)]


class Frame:
    """Rotated and gently bent axes (u, v), in metres: fields, streets and houses follow them."""

    def __init__(self, rng, size_px, bend_m):
        angle = rng.uniform(0, math.pi)
        self.centre, self.cos, self.sin = size_px / 2, math.cos(angle), math.sin(angle)
        self.bend_m, self.phase, self.length_m = bend_m, rng.uniform(0, 2 * math.pi, 2), rng.uniform(25, 50)

    def bend(self, u, v):
        return tuple(self.bend_m * np.sin(w / self.length_m + p) for w, p in zip((v, u), self.phase, strict=True))

    def to_image(self, points):
        u, v = np.asarray(points, float).T
        du, dv = self.bend(u, v)
        u, v = u + du, v + dv
        return np.stack([self.cos * u - self.sin * v, self.sin * u + self.cos * v], 1) + self.centre

    def box(self, u0, v0, u1, v1):
        return self.to_image([(u0, v0), (u1, v0), (u1, v1), (u0, v1)])

    def of_pixels(self, size_px):
        y, x = np.mgrid[:size_px, :size_px] + 0.5 - self.centre
        u, v = self.cos * x + self.sin * y, self.cos * y - self.sin * x
        du, dv = self.bend(u, v)  # the inverse to first order: fields need no more
        return u - du, v - dv


class Ground:
    """A map of materials, painted from the ground up: `image` holds indices into `materials`."""

    def __init__(self, rng, size_px):
        self.rng, self.image, self.materials = rng, Image.new("I", (size_px, size_px)), []

    def material(self, code, color, grain=0.06, height_m=0.0, tone=1.0):
        color = np.asarray(color) * tone * self.rng.normal(1, 0.04) + self.rng.normal(0, 2, 4)
        self.materials.append({"code": code, "color": color, "grain": grain, "height_m": height_m})
        return len(self.materials) - 1

    def lookup(self, key):
        return np.array([material[key] for material in self.materials])

    def fill(self, mask, material):
        self.image.paste(material, (0, 0), Image.fromarray(mask))

    def polygon(self, points, material):
        ImageDraw.Draw(self.image).polygon([tuple(p) for p in points], fill=material)

    def line(self, points, width_px, material):
        draw = ImageDraw.Draw(self.image)
        draw.line([tuple(p) for p in points], fill=material, width=max(1, round(width_px)), joint="curve")


def pick(rng, colors):
    return colors[rng.integers(len(colors))]


def paint_town(rng, ground, frame, town, sun):
    """Paint lots, houses, drives and streets where the town mask is; some blocks are yards with large roofs."""
    deep, long, half = rng.uniform(66, 84), rng.uniform(90, 150), rng.uniform(3.5, 5.0)
    reach = 0.75 * len(town)  # half the side of a square in (u, v) that covers the tile
    before = ground.image.copy()
    street = ground.material(ROAD, pick(rng, PAVING), 0.03)
    drive = ground.material(BUILT, pick(rng, PAVING), 0.03)
    lots = [ground.material(GRASS, pick(rng, LAWNS), 0.08) for _ in range(6)]
    us, vs = (np.arange(-reach - rng.uniform(0, step), reach, step) for step in (long, deep))
    yards = rng.choice([0.05, 0.5])
    for u, v in itertools.product(us, vs):
        kind, inner = rng.random(), half - 1
        if kind < yards:
            _paint_yard(rng, ground, frame, (u + inner, v + inner, u + long - inner, v + deep - inner), sun)
            continue
        if kind > 0.95:
            ground.polygon(frame.box(u + 6, v + 6, u + long - 6, v + deep - 6), ground.material(BARREN, EARTH, 0.1))
            continue
        wide = rng.uniform(22, 32)
        for a, side in itertools.product(np.arange(u + half + 2, u + long - half - wide, wide), (0, 1)):
            # Two rows of lots, back to back; b counts from the street into the lot.
            street_v, inward = (v, 1) if side == 0 else (v + deep, -1)

            def lot(a0, a1, b0, b1, street_v=street_v, inward=inward):
                return frame.box(a0, street_v + inward * b0, a1, street_v + inward * b1)

            ground.polygon(lot(a, a + wide, half, deep / 2), pick(rng, lots))
            w, d, back = rng.uniform(14, wide - 5), rng.uniform(11, 16), half + rng.uniform(5, 9)
            left = a + rng.uniform(1, wide - w - 1)
            if rng.random() < 0.1:
                continue
            gate = left + rng.uniform(0, w - 4)
            ground.polygon(lot(gate, gate + rng.uniform(3.5, 5), half, back + 1), drive)
            _paint_roof(rng, ground, lot(left, left + w, back, back + d), sun, rng.uniform(4, 8))
            if rng.random() < 0.2:
                _paint_roof(rng, ground, lot(a + 2, a + rng.uniform(4.5, 6.5), back + d + 4, back + d + 7), sun, 2.5)
    along = np.arange(-reach, reach, 5.0)
    for u in us:
        ground.line(frame.to_image(np.stack([np.full_like(along, u), along], 1)), 2 * half, street)
    for v in vs:
        ground.line(frame.to_image(np.stack([along, np.full_like(along, v)], 1)), 2 * half, street)
    ground.image.paste(before, (0, 0), Image.fromarray(~town))


def _paint_yard(rng, ground, frame, block, sun):
    """A paved block with large roofs and parked cars."""
    u0, v0, u1, v1 = block
    ground.polygon(frame.box(*block), ground.material(BUILT, pick(rng, PAVING), 0.03))
    cars = [ground.material(BUILT, color, 0.02, 1.0) for color in CARS]
    for u, v in itertools.product(np.arange(u0 + 3, u1 - 3, 2.8), np.arange(v0 + 4, v1 - 6, 11)):
        if rng.random() < 0.45:
            ground.polygon(frame.box(u, v, u + 1.2, v + 3.4), pick(rng, cars))
    cut = u0 + (u1 - u0) * rng.uniform(0.3, 0.7)
    for a, b in ((u0 + 3, cut - 6), (cut, u1 - 4)):
        if rng.random() < 0.7 and b - a > 8:
            roof = frame.box(a, v0 + rng.uniform(3, 14), b, v1 - rng.uniform(3, 14))
            _paint_roof(rng, ground, roof, sun, rng.uniform(5, 10))


def paint_farm(rng, ground, frame, centre, sun):
    """A few barns on gravel."""
    u, v = centre
    ground.polygon(frame.box(u - 20, v - 15, u + 20, v + 15), ground.material(GRASS, pick(rng, LAWNS), 0.1))
    ground.polygon(frame.box(u - 14, v - 9, u + 13, v + 8), ground.material(BUILT, GRAVEL, 0.08))
    for a, b in ((u - 17, v - 13), (u - 16, v + 4), (u + 5, v - 12), (u + 6, v + 3))[: rng.integers(1, 5)]:
        barn = frame.box(a, b, a + rng.uniform(8, 19), b + rng.uniform(6, 10))
        _paint_roof(rng, ground, barn, sun, rng.uniform(4, 8))


def _paint_roof(rng, ground, corners, sun, height_m):
    """A gable roof, its halves lit each in its own way; a flat one where it is large."""
    p, q, r, s = corners
    if np.linalg.norm(q - p) < np.linalg.norm(r - q):
        p, q, r, s = q, r, s, p
    color, eaves = np.array(pick(rng, ROOFS)) * rng.normal(1, 0.08), p - s
    tilt = (0 if np.linalg.norm(eaves) > 16 else 0.2) * float(eaves @ sun) / np.linalg.norm(eaves)
    for part, tone in (([p, q, r, s], 1 - tilt), ([p, q, (q + r) / 2, (p + s) / 2], 1 + tilt)):
        ground.polygon(part, ground.material(BUILT, color, 0.03, height_m, tone))
