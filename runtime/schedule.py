"""The learning rate of each step."""

import math


def learning_rate(step, steps, train):
    """Rate of one step (counted from 0): a linear rise over warmup_steps, then constant, or half a cosine towards 0.

    train: settings with learning_rate, schedule ("constant" or "cosine") and warmup_steps
    """
    rate = train.learning_rate * min(1.0, (step + 1) / (train.warmup_steps + 1))
    return rate * 0.5 * (1 + math.cos(math.pi * step / steps)) if train.schedule == "cosine" else rate
