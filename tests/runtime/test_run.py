"""A run's folder: its log, its records, and what it says of the rest."""

import pytest
import torch
from opened import opened


def test_a_run_says_early_and_at_each_evaluation_how_long_the_rest_takes(tmp_path, capsys):
    run = opened(tmp_path, 20, "train.epochs=12", "train.batch_size=1", "run.log_every=5")
    steps = run.each_step("images")
    assert next(steps) == 20
    for step in range(20, 50):
        run.add(loss=torch.zeros(()))
        run.started -= 6  # seconds a step
        run.end_step(step, [])
        if run.evaluate_now:
            run.validated({}, "validation")
    first, *others = [line for line in capsys.readouterr().out.splitlines() if " left" in line]
    assert "step 25/120" in first and first.endswith("images/s, about 10 min left")
    assert "a validation every 10 steps" in first
    assert [line.rpartition("about ")[2] for line in others] == ["9 min left", "8 min left", "7 min left"]


def test_a_run_that_is_opened_is_not_complete_before_it_says_so_again(tmp_path):
    (tmp_path / "metrics.json").write_text("{}")
    run = opened(tmp_path, 20)
    assert not (tmp_path / "metrics.json").exists() and (tmp_path / "config.yaml").exists()
    run.complete()
    assert (tmp_path / "metrics.json").exists()


@pytest.mark.parametrize("step, kept", [(20, [10, 20]), (0, [])])
def test_the_log_is_cut_back_to_the_checkpoints_step(tmp_path, step, kept):
    run = opened(tmp_path)
    for logged in (10, 20, 30):
        run.log({"step": logged, "kind": "train"})
    with open(run.path, "a") as file:
        file.write('{"step": 5, "ki')  # a kill in the middle of a line
    opened(tmp_path, step)
    assert run.path.read_text() == "".join(f'{{"step": {logged}, "kind": "train"}}\n' for logged in kept)
