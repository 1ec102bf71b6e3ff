"""Work in a process of its own, with an end: a crash, a hang or a full GPU in it is told and harms nothing else."""

import os
import pickle
import signal
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.connection import Connection, wait
from typing import Any

PRELOADED = ["dyncollapse.bridge.full.parts"]


@dataclass(frozen=True)
class Failure:
    """Why work gave no result, in a line, and where it was."""

    reason: str
    details: str = ""


def run_alone(work: Callable[[Callable[[str], object]], Any], until: float, tell: Callable[[str], object]) -> Any:
    """What `work(tell)` returns in another process, or a Failure where it raises, dies or is not done by `until`.

    `until` is in seconds of time.time(). The process and all that it started have ended when this returns.
    """
    # Forked from a server that has only imported: no copy of this process's CUDA, and no import again for each.
    context: Any = get_context("forkserver" if "forkserver" in get_all_start_methods() else "spawn")
    if hasattr(context, "set_forkserver_preload"):
        context.set_forkserver_preload(PRELOADED)
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(there, work))
    process.start()
    there.close()
    try:
        return _result(here, process, until, tell)
    finally:
        _kill(process)
        process.join()
        here.close()


def _result(here: Connection, process: Any, until: float, tell: Callable[[str], object]) -> Any:
    while (left := until - time.time()) > 0:
        ready = wait([here, process.sentinel], timeout=left)
        if here in ready:
            try:
                kind, content = here.recv()
            except (EOFError, OSError, pickle.UnpicklingError):
                break
            if kind == "done":
                return content
            tell(content)
        elif ready:
            break
    else:
        return Failure("it was not done in the time for it, and was ended")
    process.join(5)
    return Failure(f"its process died with exit code {process.exitcode}")


def _child(there: Connection, work: Callable[[Callable[[str], object]], Any]) -> None:
    """Send what `work` says and returns. In a group of its own, that ends together, and that Ctrl-C does not reach."""
    with suppress(AttributeError, OSError):
        os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        result = work(lambda text: there.send(("told", text)))
    except BaseException as error:  # whatever it is, the parent tells it
        lines = str(error).strip().splitlines() or [""]
        result = Failure(f"{type(error).__name__}: {lines[0]}", traceback.format_exc())
    there.send(("done", result))


def _kill(process: Any) -> None:
    """End what the process started, a group by its number, and itself, should it not lead that group yet."""
    with suppress(AttributeError, ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
