"""The learning rate of each step."""

import math


def learning_rate(step, steps, settings, warmup_steps=0):
    """Rate of one step (counted from 0): a linear rise over warmup_steps, then constant, or half a cosine towards 0.

    settings: with learning_rate and schedule ("constant" or "cosine")
    """
    rate = settings.learning_rate * min(1.0, (step + 1) / (warmup_steps + 1))
    return rate * 0.5 * (1 + math.cos(math.pi * step / steps)) if settings.schedule == "cosine" else rate
