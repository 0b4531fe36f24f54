"""Commands side by side: what starts when, what they print, and how one that fails ends those beside it."""

import os
import signal
import threading
import time

import pytest

from runtime.children import RUNNING, command, side_by_side
from runtime.errors import Refused


def noting(folder, key, seconds=0.0, status=0):
    """Words of a command that notes its beginning and its end."""
    note = f"import sys, time; note = lambda word: open({str(folder / 'log')!r}, 'a').write('{key} ' + word + chr(10))"
    return "-c", f"{note}; note('begins'); print('I am {key}'); time.sleep({seconds}); note('ends'); sys.exit({status})"


def log(folder):
    return (folder / "log").read_text().splitlines()


def test_one_at_a_time_they_come_in_order_and_print_as_they_are(tmp_path, capfd):
    side_by_side({key: noting(tmp_path, key) for key in "abc"}, {}, 1, name=str)
    assert log(tmp_path) == [f"{key} {word}" for key in "abc" for word in ("begins", "ends")]
    assert "[a]" not in capfd.readouterr().out


def test_two_at_a_time_with_their_names_and_one_thread_each_and_one_waits_for_another(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    threads = "-c", "import os; print('threads', os.environ['OMP_NUM_THREADS'])"
    words = {"slow": noting(tmp_path, "slow", 0.4), "c": noting(tmp_path, "c"), "late": noting(tmp_path, "late")}
    side_by_side({**words, "threads": threads}, {"late": "slow"}, 2, name=lambda key: f"run {key}")
    noted = log(tmp_path)
    assert noted.index("c begins") < noted.index("slow ends") < noted.index("late begins")
    printed = capfd.readouterr().out.splitlines()
    assert {"[run late] I am late", "[run slow] I am slow", "[run threads] threads 1"} <= set(printed)


def test_one_that_fails_stops_the_one_beside_it_and_begins_no_other(tmp_path):
    words = {"a": noting(tmp_path, "a", 60), "b": noting(tmp_path, "b", 0.3, status=3), "c": noting(tmp_path, "c")}
    started = time.monotonic()
    with pytest.raises(Refused, match="^stopped: python -c .* failed; fix the error and run the same command again$"):
        side_by_side(words, {}, 2, name=str)
    assert time.monotonic() - started < 30 and not any(line in log(tmp_path) for line in ("a ends", "c begins"))
    assert not RUNNING


def test_a_signal_is_passed_on_to_the_command(tmp_path):
    def terminate_when_it_runs():
        while not (tmp_path / "log").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=terminate_when_it_runs).start()
    with pytest.raises(KeyboardInterrupt) as stopped:
        command(*noting(tmp_path, "a", 60))
    assert stopped.value.args == (signal.SIGTERM,) and log(tmp_path) == ["a begins"]
