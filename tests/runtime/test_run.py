import torch
from opened import opened


def test_after_its_first_evaluation_a_run_says_once_how_long_the_rest_takes(tmp_path, capsys):
    run = opened(tmp_path, 20, "train.epochs=12", "train.batch_size=1")
    steps = run.each_step()
    assert next(steps) == 20
    run.started -= 60
    for step in range(20, 40):
        run.add(loss=torch.zeros(()))
        run.end_step(step, [])
        if run.done in (30, 40):
            run.validated({}, "validation")
    said = [line for line in capsys.readouterr().out.splitlines() if "remaining" in line]
    assert said == ["about 9 min for the remaining 9 epochs"]


def test_a_run_that_ends_with_its_first_evaluation_promises_nothing(tmp_path, capsys):
    run = opened(tmp_path, 0, "train.epochs=1", "train.batch_size=10")
    for step in run.each_step():
        run.add(loss=torch.zeros(()))
        run.end_step(step, [])
    assert run.evaluate_now and run.save_now
    run.validated({}, "validation")
    assert "remaining" not in capsys.readouterr().out


def test_a_run_that_is_opened_is_not_complete_before_it_says_so_again(tmp_path):
    (tmp_path / "metrics.json").write_text("{}")
    run = opened(tmp_path, 20)
    assert not (tmp_path / "metrics.json").exists() and (tmp_path / "config.yaml").exists()
    run.complete()
    assert (tmp_path / "metrics.json").exists()
