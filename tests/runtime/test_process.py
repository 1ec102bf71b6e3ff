"""Ctrl-C at moments when it would lose what is done; counts of threads, and memory."""

import gc
import os
import signal
import subprocess
import sys
import threading

import pytest
import torch

from dyncollapse.runtime.process import (
    PER_CORE,
    SIGNALS,
    available_memory,
    check_count,
    children_ignore_interrupts,
    collecting_later,
    cores,
    stopped_as_by_ctrl_c,
    torch_threads,
    uninterrupted,
)
from dyncollapse.runtime.settings import SettingError


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


def test_counts_are_bounded_by_the_cores_and_named_as_parameters():
    most = PER_CORE * cores()
    for count in (1, most):
        check_count("threads", count)
    check_count("workers", 0, least=0)
    check_count("threads", None)
    for name, count, least in (("threads", 0, 1), ("threads", most + 1, 1), ("workers", -1, 0)):
        with pytest.raises(SettingError) as caught:
            check_count(name, count, least)
        expected = f"{name} is {count}; it must be between {least} and {most}, {PER_CORE} for each usable core"
        assert (str(caught.value), caught.value.as_options()) == (expected, f"--{expected}")


def test_threads_of_torch_come_back_when_the_block_fails():
    before, within = torch.get_num_threads(), []

    def work():
        with torch_threads(before + 1):
            within.append(torch.get_num_threads())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert (within, torch.get_num_threads()) == ([before + 1], before)


def test_memory_is_a_number_of_bytes_where_the_system_says(monkeypatch):
    assert available_memory() is None or available_memory() > 2**20
    for text, found in (("MemTotal: 9 kB\nMemAvailable:  7 kB\n", 7 * 1024), ("MemTotal: 9 kB\n", None), ("?", None)):
        monkeypatch.setattr("pathlib.Path.read_text", lambda _path, text=text: text)
        assert available_memory() == found


@pytest.mark.parametrize(("task", "expected"), [("1", 1), ("0", 1), ("100000", None), ("", None), ("4(x2)", None)])
def test_a_slurm_task_has_no_more_cores_than_slurm_gave_it(task, expected, monkeypatch):
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    everything = cores()
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", task)
    assert cores() == (expected or everything)


def test_threads_are_counted_in_libraries_that_are_loaded_later_too():
    code = (
        "from dyncollapse.runtime.process import use_threads\n"
        "use_threads(1)\n"
        "import scipy.linalg.blas\n"
        "from threadpoolctl import threadpool_info\n"
        "print({one['num_threads'] for one in threadpool_info() if one['user_api'] == 'blas'})"
    )
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "2")
    found = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | threads, capture_output=True, text=True, check=True
    )
    assert found.stdout == "{1}\n"


def test_garbage_is_looked_for_again_after_the_last_block():
    def fail():
        with collecting_later():
            assert not gc.isenabled()
        assert not gc.isenabled()
        raise ImportError

    with pytest.raises(ImportError), collecting_later():
        fail()
    assert gc.isenabled()


def test_who_looks_for_no_garbage_is_left_alone():
    gc.disable()
    try:
        with collecting_later():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
