"""Work over processes: every job is done once; test_messages.py tells how a death is told."""

import math

import pytest

from runtime.workers import map_unordered


@pytest.mark.parametrize("workers", [1, 2, 9])
def test_every_job_is_done_once(workers):
    assert sorted(map_unordered(math.sqrt, [1, 4, 9, 16], workers, "roots")) == [1, 2, 3, 4]
