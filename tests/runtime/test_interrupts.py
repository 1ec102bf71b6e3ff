"""Ctrl-C at moments when it would lose what is done."""

import os
import signal
import threading

import pytest

from dyncollapse.runtime.interrupts import SIGNALS, children_ignore_interrupts, stopped_as_by_ctrl_c, uninterrupted


def press(number=signal.SIGINT):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("block", [uninterrupted, children_ignore_interrupts])
def test_ctrl_c_waits_for_the_end_of_the_block(block, number):
    before, done = [signal.getsignal(each) for each in SIGNALS], []

    def work():
        with block():
            press(number)
            done.append(True)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done
    assert [signal.getsignal(each) for each in SIGNALS] == before
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_second_one_ends_the_block(capfd):
    done = []

    def work():
        with uninterrupted("wait"):
            press()
            done.append(1)
            press()
            done.append(2)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == [1]
    assert capfd.readouterr().err == "wait"


def test_a_batch_system_stops_a_command_as_ctrl_c_does():
    before = signal.getsignal(signal.SIGTERM)

    def work():
        with stopped_as_by_ctrl_c():
            press(signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("block", [uninterrupted, children_ignore_interrupts, stopped_as_by_ctrl_c])
def test_signals_that_are_ignored_stay_ignored(block):
    before = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
    try:
        with block():
            for number in SIGNALS:
                press(number)
        assert {signal.getsignal(number) for number in SIGNALS} == {signal.SIG_IGN}
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_what_fails_in_the_block_passes_and_other_threads_are_left_alone():
    with pytest.raises(ZeroDivisionError), uninterrupted():
        raise ZeroDivisionError
    done = []

    def work():
        with children_ignore_interrupts():
            done.append(threading.current_thread().name)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [thread.name]
