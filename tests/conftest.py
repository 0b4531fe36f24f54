import os
import signal
from pathlib import Path

import pytest
import torch
from commands import run_script

torch.set_num_threads(1)  # two would wait for each other on a busy machine, and tests are small


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name != "test_reproduce.py")  # so one process alone makes the demo


@pytest.fixture(autouse=True)
def signals_as_they_were():
    """Scripts whose main a test calls have handlers of their own."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="session")
def real():
    """The folder of real data, where there is one."""
    if "LOW2HIGH_REAL" not in os.environ:
        pytest.skip("LOW2HIGH_REAL is not set")
    return Path(os.environ["LOW2HIGH_REAL"])


@pytest.fixture(scope="session")
def tile_set(tmp_path_factory):
    """A small tile set of made-up landscapes: 80 tiles of 64 px, n = 16."""
    root = tmp_path_factory.mktemp("tiles") / "set"
    run_script("-m", "data.synthetic", root, "--tiles", 80, "--tile-px", 64, "--scale", 16)
    return root
