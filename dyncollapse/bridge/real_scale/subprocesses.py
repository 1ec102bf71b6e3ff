"""Run work in a process of its own with a time limit, so that a crash, a hang or a full GPU is only reported."""

import faulthandler
import os
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import get_all_start_methods, get_context, get_start_method, parent_process, set_start_method
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from typing import Generic, TypeVar

# What the parts import, also what they import late, so that they need not do so each.
PRELOADED = [
    "dyncollapse.runtime.parent_watchdog",
    "dyncollapse.bridge.real_scale.parts",
    "timm.optim",
    "torchvision.transforms.v2",
    "dyncollapse.runtime.numba_first_call",
]
GRACE = 5.0  # seconds that a process has to end by itself

ResultT = TypeVar("ResultT")
Tell = Callable[[str], object]


@dataclass(frozen=True)
class Failure(Generic[ResultT]):
    """Why work gave no result.

    Attributes:
        reason: One line.
        details: The traceback.
        saved: The last partial result that the work saved.
    """

    reason: str
    details: str = ""
    saved: ResultT | None = None


def run_in_subprocess(
    work: Callable[[Tell, Callable[[ResultT], object]], ResultT],
    until: float,
    tell: Tell,
    keep: Callable[[ResultT], object] = lambda _saved: None,
) -> ResultT | Failure[ResultT]:
    """Do work in another process; that process and all that it started have ended when this returns.

    Args:
        work: Called in the other process with two functions: `tell` for lines on its progress, `save` for partial
            results.
        until: When it has to end, in seconds of time.time().
        tell: Called in this process with each line.
        keep: Called in this process with each partial result.

    Returns:
        What the work returned, or a Failure if it raised, died or did not end in time.
    """
    # Fork from a server that has only imported modules: no copy of this process's CUDA state, no repeated imports.
    context: ForkServerContext | SpawnContext
    if "forkserver" in get_all_start_methods():
        context = get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
    else:
        context = get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(there, work, until, get_start_method()))
    process.start()
    there.close()
    try:
        return _result(here, process, until, tell, keep)
    finally:
        _kill(process)
        process.join()
        here.close()


def _result(
    here: Connection, process: BaseProcess, until: float, tell: Tell, keep: Callable[[ResultT], object]
) -> ResultT | Failure[ResultT]:
    saved: ResultT | None = None
    while (left := until - time.time()) > 0:
        ready = wait([here, process.sentinel], timeout=left)
        if here in ready:
            try:
                kind, content = here.recv()
            except (EOFError, OSError, pickle.UnpicklingError):
                break
            if kind == "done":
                process.join(GRACE)  # frees the system's entry for it
                return replace(content, saved=saved) if isinstance(content, Failure) else content
            if kind == "saved":
                saved = content
                keep(content)
            else:
                tell(content)
        elif ready:
            break
    else:
        return Failure("it did not end in time and was stopped", saved=saved)
    process.join(GRACE)
    return Failure(f"its process died with exit code {process.exitcode}", saved=saved)


def _child(
    there: Connection, work: Callable[[Tell, Callable[[ResultT], object]], ResultT], until: float, start_method: str
) -> None:
    """Run `work` in a process group of its own, which Ctrl-C does not reach, and send what it tells, saves, returns."""
    # Workers that the work starts must start as those of a command do. A child of a fork server would start each of
    # them from a new server, which imports everything again.
    set_start_method(start_method, force=True)
    with suppress(AttributeError, OSError):
        os.setpgid(0, 0)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # A hang leaves its traceback on stderr.
    faulthandler.dump_traceback_later(max(0.1, until - time.time() - 1))
    try:
        result: ResultT | Failure[ResultT] = work(
            lambda text: there.send(("line", text)), lambda value: there.send(("saved", value))
        )
    except BaseException as error:  # whatever it is, the parent reports it
        lines = str(error).strip().splitlines() or [""]
        result = Failure(f"{type(error).__name__}: {lines[0]}", traceback.format_exc())
    there.send(("done", result))


def _end_with_parent() -> None:
    """Kill the whole process group if the command has died and cannot do it."""
    if (parent := parent_process()) is not None:
        parent.join()
        os.killpg(0, signal.SIGKILL)


def _kill(process: BaseProcess) -> None:
    """Kill the process group, and the process itself in case it does not lead the group yet."""
    if process.pid is not None:
        with suppress(AttributeError, ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
