"""Peak memory of predict.py on a small and on a large made-up scene: it should not grow with the scene.

    python tests/scene_memory.py [--sides 5000 12288] [further words of predict.py]

Scenes of three bands, cheaply made: a few blocks of noise over and over; network of model.width=8. No test: minutes.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np
import tifffile

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from random_checkpoint import save_random_checkpoint  # noqa: E402

LIMIT_MB, GROWTH_MB = 1500, 300


def make_scene(path, side):
    """A GeoTIFF of side x side x 3 uint8 in zlib tiles of 512 px, a few of them over and over."""
    rng, across = np.random.default_rng(0), -(-side // 512)
    smooth = np.kron(rng.integers(20, 220, (4, 32, 32, 3)), np.ones((1, 16, 16, 1)))
    tiles = [zlib.compress(tile, 1) for tile in (smooth + rng.integers(0, 30, smooth.shape)).astype(np.uint8)]
    segments = (tiles[(row + col) % 4] for row in range(across) for col in range(across))
    facts = {"shape": (side, side, 3), "dtype": np.uint8, "photometric": "rgb", "metadata": None, "tile": (512, 512)}
    tifffile.imwrite(path, segments, compression="zlib", **facts)


def measure(words):
    """Run predict.py -> (peak resident memory in MB, seconds)."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, str(ROOT / "predict.py"), *map(str, words)], cwd=ROOT)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"predict.py failed with status {os.waitstatus_to_exitcode(status)}")
    unit = 1 if sys.platform == "darwin" else 1024
    return usage.ru_maxrss * unit / 1e6, time.perf_counter() - started


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[5000, 12288], metavar="PX")
    arguments, further = parser.parse_known_args()
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        trained = save_random_checkpoint(Path(folder) / "best.pt", width=8)
        for side in arguments.sides:
            scene = Path(folder) / f"{side}.tif"
            make_scene(scene, side)
            peak, seconds = measure([trained, scene, "--out", Path(folder) / f"{side}_map.tif", *further])
            print(f"{side} x {side} px: peak {peak:,.0f} MB, {seconds:.0f} s", flush=True)
            peaks.append(peak)
    growth = peaks[-1] - peaks[0]
    print(f"growth {growth:,.0f} MB")
    if max(peaks) > LIMIT_MB or growth > GROWTH_MB:
        sys.exit(f"more than {LIMIT_MB} MB, or {GROWTH_MB} MB of growth")


if __name__ == "__main__":
    main()
