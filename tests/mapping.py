"""predict.py in this process, with the signals of a test left as they were."""

import signal

import pytest

import predict


@pytest.fixture(autouse=True)
def default_signals():
    yield
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def run(*words):
    predict.main(predict.parse([str(word) for word in words]))
