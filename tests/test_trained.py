"""A segmenter from its checkpoint."""

from pathlib import Path

import pytest
import torch
from random_checkpoint import save_random_checkpoint

from runtime import checkpoint
from trained import Trained, load_trained, told_apart

CPU = torch.device("cpu")


@pytest.mark.parametrize("labels, aggregate, gain", [
    ("low_regions", "sum", 1), ("low_regions", "mean_probs", 1),
    ("low_regions", "literal_sum", 900),  # n² of the made-up checkpoint, whose scale is 30
    ("low_upsampled", "literal_sum", 1), ("high", "literal_sum", 1),  # rows without regions sum nothing
])  # fmt: skip
@torch.no_grad()
def test_logits_mean_the_same_whatever_the_sum_was(tmp_path, labels, aggregate, gain):
    plain = load_trained(save_random_checkpoint(tmp_path / "plain.pt"), CPU)
    state = checkpoint.load(tmp_path / "plain.pt")
    config = {**state["config"], "supervision.labels": labels, "supervision.aggregate": aggregate}
    checkpoint.save(tmp_path / "other.pt", {**state, "config": config})
    image = torch.randint(0, 256, (1, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    assert torch.equal(load_trained(tmp_path / "other.pt", CPU)(image), gain * plain(image))


def test_rows_of_one_name_are_told_apart_by_their_files():
    files = [Path("a/agg-0/best.pt"), Path("a/low/best.pt"), Path("a/agg-1/best.pt")]
    methods = [Trained(name, {}, None, None, None) for name in ("Agg", "Low", "Agg")]
    assert [m.name for m in told_apart(methods, files)] == ["Agg (a/agg-0/best.pt)", "Low", "Agg (a/agg-1/best.pt)"]
