"""Peak memory of predict.py on a small and on a large made-up scene: it should not grow with the scene.

    python docs/scene_memory.py [further words of predict.py]

Scenes of three bands, a block of noise over and over; network of model.width=8. No test: minutes.
"""

import itertools
import resource
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

SIDES_PX, LIMIT_MB, GROWTH_MB = (5000, 12288), 1500, 300
UNIT_MB = 1e-6 if sys.platform == "darwin" else 1024e-6  # of ru_maxrss


def main():
    # One compressed tile over and over: this process stays small, since its peak would count as its children's.
    tile, peaks = zlib.compress(np.random.default_rng(0).integers(20, 250, (512, 512, 3)).astype(np.uint8), 1), []
    layout = {"tile": (512, 512), "compression": "zlib", "photometric": "rgb", "metadata": None, "dtype": np.uint8}
    with tempfile.TemporaryDirectory() as folder:
        trained = save_random_checkpoint(Path(folder) / "best.pt", width=8)
        for side in SIDES_PX:
            scene, tiles = Path(folder) / f"{side}.tif", itertools.repeat(tile, (-(-side // 512)) ** 2)
            tifffile.imwrite(scene, tiles, shape=(side, side, 3), **layout)
            words = [sys.executable, "predict.py", trained, scene, "--out", f"{folder}/{side}_map.tif", *sys.argv[1:]]
            started = time.perf_counter()
            subprocess.run(words, cwd=ROOT, check=True)
            peaks.append(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * UNIT_MB)  # the most of all so far
            print(f"{side} x {side} px: peak {peaks[-1]:,.0f} MB, {time.perf_counter() - started:.0f} s", flush=True)
    if peaks[-1] > LIMIT_MB or peaks[-1] - peaks[0] > GROWTH_MB:
        sys.exit(f"more than {LIMIT_MB} MB, or {GROWTH_MB} MB of growth")


if __name__ == "__main__":
    main()
