"""SIGTERM and SIGINT (Ctrl-C) end a run after its step and its save; a second one leaves at once."""

import os
import signal
import time

SAME_REQUEST_S = 1.0  # a scheduler and torchrun may both pass on one request


class Stopped(Exception):
    """A run that was asked to stop and has saved; one line, and the number of the signal that asked."""

    def __init__(self, run_dir, step, steps, number):
        name = signal.Signals(number).name
        super().__init__(f"{run_dir}: {name}: stopped at step {step} of {steps}; the same command resumes it")
        self.number = number


def interrupt(number, _frame):
    """The handler of a signal that leaves as Ctrl-C does: nothing half written stays."""
    raise KeyboardInterrupt(number)


class StopRequest:
    """From here on signals are noted; `number` is the signal that asked this process to stop, 0 before."""

    def __init__(self):
        self.number = self.time = 0
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) != signal.SIG_IGN:  # as shells have it for Ctrl-C and jobs in the background
                signal.signal(number, self._note)

    def _note(self, number, _frame):
        if not self.number:
            self.number, self.time = number, time.monotonic()
        elif time.monotonic() - self.time > SAME_REQUEST_S:
            os._exit(128 + number)
