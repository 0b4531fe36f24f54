import pytest

from config import TrainConfig
from runtime.schedule import learning_rate


def test_the_rate_rises_over_the_warm_up_and_stays():
    train = TrainConfig(learning_rate=1.0, warmup_steps=3)
    assert [learning_rate(step, 10, train) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]


def test_cosine_falls_from_the_rate_towards_0_by_half_a_period():
    train = TrainConfig(learning_rate=2.0, schedule="cosine")
    rates = [learning_rate(step, 100, train) for step in range(100)]
    assert rates[0] == 2 and rates[50] == pytest.approx(1) and 0 < rates[99] < 1e-3
    assert rates == sorted(rates, reverse=True)
