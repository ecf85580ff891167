"""Tests of hearing the signals that ask a server to stop."""

import asyncio
import os
import signal

import pytest

from skipserve.stop_signals import StopSignals

pytestmark = [
    pytest.mark.fast,
    pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT]),
]


def test_before_anything_is_served_the_first_one_ends_all(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as caught, StopSignals():
        os.kill(os.getpid(), number)
    assert caught.value.code == 0
    assert signal.getsignal(number) is before


def test_a_loop_hears_the_first_and_the_second(number: signal.Signals) -> None:
    async def stop(signals: StopSignals) -> None:
        signals.follow()
        os.kill(os.getpid(), number)
        await signals.asked.wait()
        assert not signals.insisted.is_set()
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
        await signals.insisted.wait()

    with StopSignals() as signals:
        asyncio.run(stop(signals))


def test_on_the_way_out_none_is_heard(number: signal.Signals) -> None:
    before = {it: signal.getsignal(it) for it in (signal.SIGTERM, signal.SIGINT)}
    try:
        with StopSignals() as signals:
            signals.end()
            os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
        assert not signals.asked.is_set()
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def test_a_library_that_takes_the_signals_gives_them_back(number: signal.Signals) -> None:
    async def stop(signals: StopSignals) -> None:
        signals.follow()
        os.kill(os.getpid(), number)
        await signals.asked.wait()

    before = signal.getsignal(number)
    with StopSignals() as signals:
        signal.signal(number, signal.SIG_IGN)
        signals.hear_again()
        asyncio.run(stop(signals))
    assert signal.getsignal(number) is before
