"""What belongs to the whole process: signals, its end, threads and memory.

The server of worker processes imports this module first, so it imports nothing slow.
"""

import ctypes
import gc
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

from dyncollapse.runtime.settings import SettingError, quoted

SIGNALS = (signal.SIGINT, signal.SIGTERM)
PARENT = "DYNCOLLAPSE_PARENT"  # environment variable that tells a server of workers which process starts it
PR_SET_PDEATHSIG = 1  # of Linux's prctl.h
# Most threads or processes per usable core. More of them only wait for each other, and thousands exhaust the system's
# limits. 16 is a rule of thumb that leaves room for processes that wait for disks.
PER_CORE = 16
# Parameters of glibc's malloc.h and the values that they get: 32 MB is the most that glibc allows for the second.
M_TRIM_THRESHOLD, KEPT = -1, 2**28
M_MMAP_THRESHOLD, LARGEST = -3, 2**25


@contextmanager
def stopped_as_by_ctrl_c() -> Iterator[None]:
    """Treat SIGTERM, with which batch systems end a program, like Ctrl-C, so that recorded results are kept."""
    before = _handlers(signal.SIGTERM)
    _handle(dict.fromkeys(before, signal.default_int_handler))
    try:
        yield
    finally:
        _handle(before)


@contextmanager
def uninterrupted(message: str = "") -> Iterator[None]:
    """Delay Ctrl-C until the end of the block; a second Ctrl-C acts at once.

    Args:
        message: Written to stderr at the first Ctrl-C.

    Raises:
        KeyboardInterrupt: At the end of the block, when Ctrl-C was pressed within it.
    """
    pressed, before = [], _handlers(*SIGNALS)

    def later(*_: object) -> None:
        _handle(before)
        pressed.append(True)
        os.write(2, message.encode())  # not by sys.stderr, whose write this handler may have interrupted

    _handle(dict.fromkeys(before, later))
    try:
        yield
    finally:
        _handle(before)
    if pressed:
        raise KeyboardInterrupt


@contextmanager
def children_ignore_interrupts() -> Iterator[None]:
    """Let processes that are started in the block ignore Ctrl-C; this process delays it until the end of the block.

    A terminal sends Ctrl-C to all processes of a program, and each would print a traceback.
    """
    with uninterrupted():
        if not hasattr(signal, "pthread_sigmask"):
            yield
            return
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # children inherit the mask
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent(parent: int | None = None) -> None:
    """Have Linux kill this process when the thread that started it ends, however that happens.

    Args:
        parent: Number of the process of that thread, where known. If it has ended already, this process ends at once:
            Linux reports no deaths that came before the request.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if parent not in (None, os.getppid()):
            os._exit(1)


def start_tracker_quietly() -> None:
    """Start multiprocessing's resource tracker, if it is not running, without its warnings.

    The tracker outlives a killed program for a moment and removes its semaphores; its warning about them would appear
    after the terminal's next prompt.
    """
    name = "PYTHONWARNINGS"
    before = os.environ.get(name)
    os.environ[name] = ",".join(filter(None, (before, "ignore:resource_tracker")))
    try:
        resource_tracker.ensure_running()
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _handlers(*numbers: signal.Signals) -> dict[signal.Signals, Any]:
    """The handlers of these signals, without ignored ones (as in a background job); empty where none can be set."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    found = {number: signal.getsignal(number) for number in numbers}
    return {number: handler for number, handler in found.items() if handler not in (signal.SIG_IGN, None)}


def _handle(handlers: dict[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


def cores() -> int:
    """Number of processor cores that this process may use; 1 where the system does not say.

    In a Slurm job they are at most those of its task, which Slurm does not enforce on every cluster.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    task = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return min(allowed, max(1, int(task))) if task.isdecimal() else allowed


def core_share(processes: int | None = None) -> int:
    """Cores for each of several processes that share this machine, at least 1.

    Args:
        processes: Their number; None for the processes that torchrun started here, and 1 without torchrun.

    Returns:
        The usable cores over `processes`, rounded down.

    Examples:
        >>> core_share(1) == cores(), core_share(10**6)
        (True, 1)
    """
    if processes is None:
        started = os.environ.get("LOCAL_WORLD_SIZE", "")  # torchrun sets it
        processes = int(started) if started.isdecimal() else 1
    return max(1, cores() // max(1, processes))


def default_threads(processes: int | None = None) -> int:
    """Threads of single operations where no number is given: the share of the cores, at most OMP_NUM_THREADS if set.

    Args:
        processes: As for `core_share`.

    Returns:
        The number of threads, at least 1.

    Examples:
        >>> default_threads(10**6)
        1
    """
    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]  # OpenMP takes a number for each level
    share = core_share(processes)
    return min(share, max(1, int(given))) if given.isdecimal() else share


def check_count(name: str, count: int | None, least: int = 1) -> None:
    """Refuse a number of threads or processes that this machine cannot use.

    Args:
        name: The setting that gave it.
        count: The number, or None where the program chooses it.
        least: The smallest number that is allowed.

    Raises:
        SettingError: For anything but a whole number, below `least`, and above PER_CORE for each usable core.
    """
    if count is None:
        return
    if isinstance(count, bool) or not isinstance(count, int):
        raise SettingError(f"`{name}` is {count!r}; it must be a whole number of at least {least}")
    most = PER_CORE * cores()
    if not least <= count <= most:
        raise SettingError(
            f"`{name}` is {count}; it must be between {least} and {most}, {PER_CORE} for each usable core"
        )


def check_device(name: str, origin: str = "") -> None:
    """Refuse a device that this machine does not have.

    Args:
        name: The device, cpu, cuda or cuda:N.
        origin: Where the name is from, for the message.

    Raises:
        SettingError: The message lists the devices that there are.
    """
    import torch

    offered = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    offered += [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if name not in offered:
        choose = "choose one of these" if offered[1:] else "give `device` cpu"
        raise SettingError(f"`device` is {quoted(name)}{origin}; this machine offers {', '.join(offered)}; {choose}")


def use_threads(count: int) -> None:
    """Let PyTorch, NumPy's and SciPy's products use `count` CPU threads in this process: for commands and workers only.

    SciPy's multiply in population flows. Processes that take all cores for it wait for each other: on a busy machine a
    flow took seven times as long.

    Args:
        count: Threads.
    """
    import scipy.linalg  # noqa: F401 - a library that is loaded later would have its own way
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(count)
    threadpool_limits(count, "blas")


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let PyTorch use `count` CPU threads within the block.

    The number belongs to the whole process: where blocks of several Python threads overlap, the last to end restores
    the number that it found.

    Args:
        count: Threads.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@cache
def recycle_freed_memory() -> None:
    """Let glibc reuse freed memory instead of returning it to the system: up to twice as fast on a CPU.

    By default glibc maps every block beyond 128 kB anew, at one page fault per 4 kB. Measured, that is half of the
    time of an SGD step on 64 runs, and a sixth of that of an exact Jacobian. The setting holds for the whole process,
    which may then keep up to 256 MB that it does not use. The command line and its workers call this function, library
    functions never do: call it once at the start of a script of your own. It does nothing on other C libraries.

    Examples:
        >>> recycle_freed_memory()  # once, at the start; later calls do nothing
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT)


@contextmanager
def collecting_later() -> Iterator[None]:
    """Look for no garbage in the block, which imports or makes little of it: that takes a fifth of an import's time."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def available_memory() -> int | None:
    """Bytes of memory that this process can still take without swapping; None where the system does not say."""
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        return 1024 * int(fields["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        return None
