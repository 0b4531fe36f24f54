"""How OpenMP's threads wait for each other. Its library reads this once, when torch is imported: say it before."""

import os


def wait_passively():
    """Let a thread that waits for another sleep, unless the environment says else (OMP_WAIT_POLICY).

    By default it spins. Where other programs want the cores too, it spins for as long as the thread that it waits for
    has no core, and keeps it from one: on two cores with other jobs on them training fell to 1.3 tiles/s, and to 17 to
    31 where threads sleep.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
