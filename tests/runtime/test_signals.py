import pytest
from commands import ROOT

SCRIPTS = ["train_seg.py", "train_mae.py", "evaluate.py", "predict.py", "export.py", "reproduce.py", "bench.py"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_each_script_says_what_comes_before_torch(script):
    lines = (ROOT / script).read_text().splitlines()
    assert lines.index("    signals.leave_quietly()") < lines.index("import torch")
