"""Work in a process of its own, with an end: a crash, a hang or a full GPU in it is told and harms nothing else."""

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
from multiprocessing import get_all_start_methods, get_context, parent_process
from multiprocessing.connection import Connection, wait
from typing import Any

PRELOADED = ["dyncollapse.runtime.leash", "dyncollapse.bridge.real_scale.parts"]
GRACE = 5.0  # seconds that a process has to end by itself


@dataclass(frozen=True)
class Failure:
    """Why work gave no result, in a line, where it was, and the last that it had given to `save`."""

    reason: str
    details: str = ""
    saved: Any = None


Work = Callable[[Callable[[str], object], Callable[[Any], object]], Any]


def run_in_subprocess(work: Work, until: float, tell: Callable[[str], object]) -> Any:
    """What `work(tell, save)` returns in another process, or a Failure where it raises, dies or is not done by `until`.

    `until` is in seconds of time.time(). The process and all that it started have ended when this returns.
    """
    # Forked from a server that has only imported: no copy of this process's CUDA, and no import again for each.
    context: Any = get_context("forkserver" if "forkserver" in get_all_start_methods() else "spawn")
    if hasattr(context, "set_forkserver_preload"):
        context.set_forkserver_preload(PRELOADED)
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(there, work, until))
    process.start()
    there.close()
    try:
        return _result(here, process, until, tell)
    finally:
        _kill(process)
        process.join()
        here.close()


def _result(here: Connection, process: Any, until: float, tell: Callable[[str], object]) -> Any:
    saved = None
    while (left := until - time.time()) > 0:
        ready = wait([here, process.sentinel], timeout=left)
        if here in ready:
            try:
                kind, content = here.recv()
            except (EOFError, OSError, pickle.UnpicklingError):
                break
            if kind == "done":
                process.join(GRACE)  # to give back what the system keeps for it
                return replace(content, saved=saved) if isinstance(content, Failure) else content
            if kind == "saved":
                saved = content
            else:
                tell(content)
        elif ready:
            break
    else:
        return Failure("it was not done in the time for it, and was ended", saved=saved)
    process.join(GRACE)
    return Failure(f"its process died with exit code {process.exitcode}", saved=saved)


def _child(there: Connection, work: Work, until: float) -> None:
    """Send what `work` says, saves and returns, in a group of its own that ends together and that Ctrl-C spares."""
    with suppress(AttributeError, OSError):
        os.setpgid(0, 0)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Where it hangs, stderr tells where.
    faulthandler.dump_traceback_later(max(0.1, until - time.time() - 1))
    try:
        result = work(lambda text: there.send(("told", text)), lambda value: there.send(("saved", value)))
    except BaseException as error:  # whatever it is, the parent tells it
        lines = str(error).strip().splitlines() or [""]
        result = Failure(f"{type(error).__name__}: {lines[0]}", traceback.format_exc())
    there.send(("done", result))


def _end_with_parent() -> None:
    """End the whole group when the command has died and cannot do it."""
    if (parent := parent_process()) is not None:
        parent.join()
        os.killpg(0, signal.SIGKILL)


def _kill(process: Any) -> None:
    """End what the process started, a group by its number, and itself, should it not lead that group yet."""
    with suppress(AttributeError, ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
