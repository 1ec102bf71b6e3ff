"""Ctrl-C at moments when it would lose what is done."""

import os
import signal
import threading

import pytest

from dyncollapse.interrupts import deaf_children, uninterrupted


def press():
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("block", [uninterrupted, deaf_children])
def test_ctrl_c_waits_for_the_end_of_the_block(block):
    before, done = signal.getsignal(signal.SIGINT), []

    def work():
        with block():
            press()
            done.append(True)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done
    assert signal.getsignal(signal.SIGINT) is before
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


def test_what_fails_in_the_block_passes_and_other_threads_are_left_alone():
    with pytest.raises(ZeroDivisionError), uninterrupted():
        raise ZeroDivisionError
    done = []

    def work():
        with deaf_children():
            done.append(threading.current_thread().name)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [thread.name]
