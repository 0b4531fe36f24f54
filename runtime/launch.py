"""What a script says before torch is imported."""

from runtime import signals


def before_torch():
    """End quietly by Ctrl-C while nothing is begun."""
    signals.leave_quietly()
