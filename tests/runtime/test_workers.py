"""Work over processes: results, and what happens when a process dies."""

import math
import os

import pytest

from runtime.errors import Refused
from runtime.workers import map_unordered


@pytest.mark.parametrize("workers", [1, 2, 9])
def test_every_job_is_done_once(workers):
    assert sorted(map_unordered(math.sqrt, [1, 4, 9, 16], workers, "roots")) == [1, 2, 3, 4]


def test_a_worker_that_dies_is_one_line():
    with pytest.raises(Refused, match="^scenes: a worker process died .* fewer --workers"):
        list(map_unordered(os._exit, [1, 1], 2, "scenes"))
