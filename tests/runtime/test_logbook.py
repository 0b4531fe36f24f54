from config import SegmenterConfig
from runtime.logbook import Logbook


def test_after_its_first_evaluation_a_run_says_once_how_long_the_rest_takes(tmp_path, capsys):
    log = Logbook(tmp_path, SegmenterConfig(), step=20)
    log.started -= 60
    log.expect(30, 120, 10)
    assert capsys.readouterr().out == "about 9 min for the remaining 9 epochs\n"
    log.expect(40, 120, 10)
    assert capsys.readouterr().out == ""


def test_a_run_that_ends_with_its_first_evaluation_promises_nothing(tmp_path, capsys):
    Logbook(tmp_path, SegmenterConfig()).expect(10, 10, 10)
    assert capsys.readouterr().out == ""


def test_a_run_that_is_opened_is_not_complete_before_it_says_so_again(tmp_path):
    (tmp_path / "metrics.json").write_text("{}")
    Logbook(tmp_path, SegmenterConfig(), step=20)
    assert not (tmp_path / "metrics.json").exists() and (tmp_path / "config.yaml").exists()
