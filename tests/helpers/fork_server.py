"""A process with everything imported, which forks a child for each program that `helpers.forks` asks for.

A child begins as Python begins a program, in a folder and with streams and an environment of its own, and ends as
Python ends one, but for the seconds it takes to free every module.
"""

import atexit
import gc
import importlib
import io
import json
import os
import pkgutil
import runpy
import selectors
import signal
import socket
import sys
import threading
import types
import warnings
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, NoReturn

from helpers.forks import NUMBER
from helpers.formulas import parse_formulas_once

LIBRARIES = ("scipy.integrate", "sklearn.datasets", "sklearn.linear_model", "timm.optim", "torchvision.transforms.v2")


def warm(libraries: Iterable[str]) -> None:
    """Import the package, without what is built on optional libraries, and what commands import later."""
    import dyncollapse
    from dyncollapse.dynamics.compile_kernels import compile_kernels

    for module in pkgutil.walk_packages(dyncollapse.__path__, "dyncollapse."):
        # transformers takes a process that has imported marimo for a notebook.
        optional = module.name.startswith(("dyncollapse.integrations.", "dyncollapse.explore."))
        if not module.name.endswith("__main__") and not optional:
            importlib.import_module(module.name)
    for name in libraries:
        importlib.import_module(name)
    compile_kernels()  # here they are only loaded, but that takes half a second as well
    _draw()


def _draw() -> None:
    """Draw a logarithmic axis in each format: Matplotlib finds fonts, and parses formulas, at the first of each."""
    from matplotlib.figure import Figure

    parse_formulas_once()
    figure = Figure(layout="constrained")
    axes = figure.subplots()
    axes.loglog([1e-12, 1e6], [1e-12, 1e6], label="a line")
    axes.legend()
    for form in ("png", "svg", "pdf"):
        figure.savefig(io.BytesIO(), format=form)


def settle() -> None:
    """Leave to children nothing of this process to clean up, which would copy most of its memory in each."""
    gc.collect()
    gc.freeze()
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        finalizer.atexit = False


def serve(listener: socket.socket) -> dict[str, Any] | None:
    """Fork a child for each request; returns in a child, with its request, and when all have left, with None."""
    tellings: dict[int, int] = {}  # where to tell of a child
    woken, waking = socket.socketpair()
    waking.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waking.fileno())
    selector = selectors.DefaultSelector()
    ours = [listener, woken, waking]  # and a connection to each process of tests
    for end in (listener, woken):
        selector.register(end, selectors.EVENT_READ)
    while True:
        ready: list[Any] = [key.fileobj for key, _ in selector.select()]
        if woken in ready:
            woken.recv(4096)
            _tell_ends(tellings)
        if listener in ready:
            ours.append(listener.accept()[0])
            with suppress(BrokenPipeError):  # who came only to collect tests has left
                ours[-1].send(b".")
            selector.register(ours[-1], selectors.EVENT_READ)
        for connection in set(ours[3:]).intersection(ready):
            message, files, *_ = socket.recv_fds(connection, 1, 5)
            if message:
                if _fork(files, tellings):
                    continue
                selector.close()
                for end in ours:
                    end.close()
                return _entered(files[0], files[2:])
            selector.unregister(connection)
            ours.remove(connection)
            connection.close()
            if len(ours) == 3:
                signal.set_wakeup_fd(-1)
                selector.close()
                for end in ours[1:]:
                    end.close()
                return None


def _fork(files: list[int], tellings: dict[int, int]) -> int:
    """Fork a child, for the files of a request; returns what os.fork does."""
    child = os.fork()
    if child:
        file, tellings[child], *streams = files
        os.write(tellings[child], NUMBER.pack(child))
        left = [file, *streams]
    else:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        left = [files[1], *tellings.values()]
    for number in left:
        os.close(number)
    return child


def _tell_ends(tellings: dict[int, int]) -> None:
    while tellings:
        child, status = os.waitpid(-1, os.WNOHANG)
        if child == 0:
            return
        telling = tellings.pop(child)
        with suppress(BrokenPipeError):  # nobody waits for it
            os.write(telling, NUMBER.pack(status))
        os.close(telling)


def _entered(file: int, streams: list[int]) -> dict[str, Any]:
    """Take the folder, the environment and the streams of a request."""
    with open(file, "rb") as content:
        request = json.load(content)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    # What a stream can do is found out when it is opened.
    sys.stdin = os.fdopen(0, encoding=sys.stdin.encoding, closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding=sys.stdout.encoding, closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, encoding=sys.stderr.encoding, errors="backslashreplace", closefd=False)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    if request["session"]:
        os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return request


def begin(command: list[str]) -> None:
    """Do what Python does with the words of a command line."""
    if command[:2] == ["-W", "error"]:
        command = command[2:]
    else:
        sys.warnoptions.clear()
        warnings.filters.remove(("error", None, Warning, None, 0))
        warnings._filters_mutated()  # type: ignore[attr-defined]
    match command:
        case ["-c", code, *arguments]:
            sys.argv, sys.path[:0] = ["-c", *arguments], [""]
            program = sys.modules["__main__"] = types.ModuleType("__main__")
            exec(compile(code, "<string>", "exec"), program.__dict__)
        case ["-m", name, *arguments]:
            sys.argv, sys.path[:0] = ["-m", *arguments], [os.getcwd()]
            runpy.run_module(name, run_name="__main__", alter_sys=True)
        case [script, *arguments]:
            sys.argv, sys.path[:0] = [script, *arguments], [os.path.dirname(script)]
            runpy.run_path(script, run_name="__main__")


def finish(work: Callable[[], object]) -> NoReturn:
    """Do the work of a program, and end as Python ends one."""
    code: Any = 0
    try:
        work()
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    if not isinstance(code, int | None):
        sys.stderr.write(f"{code}\n")
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in filter(None, (sys.stdout, sys.stderr)):  # a program may have closed one
        try:
            stream.flush()
        except OSError as error:
            sys.stderr.write(f"Exception ignored in: {stream!r}: {error}\n")
            code = 120
    os._exit(code or 0)


if __name__ == "__main__":
    warm(LIBRARIES)
    settle()
    with socket.socket(fileno=int(sys.argv[1])) as listener:
        request = serve(listener)
    finish(lambda: begin(request["command"]) if request else None)
