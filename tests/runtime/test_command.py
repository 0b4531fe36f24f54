"""From main to the shell: one line and a status, whatever ends it."""

import signal
from unittest.mock import Mock

import pytest

from runtime import command
from runtime.errors import Refused
from runtime.signals import Stopped


@pytest.mark.parametrize("error, status, line", [
    (Refused("no such thing"), 2, "error: no such thing"),
    (OSError(28, "No space left on device", "a.json"), 2, "error: a.json: No space left on device"),
    (KeyboardInterrupt(), 130, "stopped; the same command resumes from what is complete"),
    (KeyboardInterrupt(signal.SIGTERM), 143, "stopped; the same command resumes from what is complete"),
    (Stopped("run", 7, 9, signal.SIGTERM), 143, "run: SIGTERM: stopped at step 7 of 9; the same command resumes it"),
])  # fmt: skip
def test_an_end_is_one_line_and_a_status(capsys, error, status, line):
    with pytest.raises(SystemExit) as ended:
        command.run(Mock(side_effect=error))
    assert ended.value.code == status and capsys.readouterr().err == line + "\n"
