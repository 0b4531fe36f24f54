"""What a script says before torch is imported."""

import os

from runtime import signals


def before_torch():
    """End quietly by Ctrl-C while nothing is begun, and let threads that wait sleep."""
    signals.leave_quietly()
    wait_passively()


def wait_passively():
    """Let an OpenMP thread that waits for another sleep, unless the environment says else (OMP_WAIT_POLICY).

    Its library reads this once, when torch is imported.

    By default it spins. Where other programs want the cores too, it spins for as long as the thread that it waits for
    has no core, and keeps it from one: on two cores with other jobs on them training fell to 1.3 tiles/s, and to 17 to
    31 where threads sleep.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
