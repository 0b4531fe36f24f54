import os
import subprocess
import sys

import pytest
from commands import ROOT

# What torch's OpenMP says of itself where it is asked to, before the command does anything.
SCRIPTS = ["train_seg.py", "train_mae.py", "evaluate.py", "predict.py", "export.py", "reproduce.py", "bench.py"]


def waits(script, **environment):
    environment = {**{k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}, **environment}
    environment["OMP_DISPLAY_ENV"] = "true"
    done = subprocess.run([sys.executable, script, "--help"], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if "OMP_WAIT_POLICY" not in done.stderr:
        pytest.skip("this torch's OpenMP does not say how its threads wait")
    return done.stderr


def test_threads_sleep_where_they_wait_unless_the_environment_says_else():
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in waits("predict.py")
    assert "OMP_WAIT_POLICY = 'ACTIVE'" in waits("predict.py", OMP_WAIT_POLICY="active")


@pytest.mark.parametrize("script", SCRIPTS)
def test_each_script_says_so_before_torch_is_imported(script):
    lines = (ROOT / script).read_text().splitlines()
    assert lines.index("    launch.before_torch()") < lines.index("import torch")
