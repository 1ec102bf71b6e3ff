"""A process with everything imported, which forks one child for each command line and watches it.

To start Python with torch takes seconds, a fork milliseconds. A child runs the command line as `python -m dyncollapse`
does, ends as any Python program ends, and counts its own time and memory.
"""

import json
import os
import resource
import signal
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

from helpers.fork_server import finish, settle, warm

LIBRARIES = (
    "matplotlib.pyplot",
    "rich.progress",
    "safetensors.torch",
    "scipy.integrate",
    "sklearn.datasets",
    "sklearn.linear_model",
    "timm.optim",
    "torchvision.datasets",
    "torchvision.transforms.v2",
)
POLL, SCAN = 0.01, 0.1  # seconds between looks at the child, and at everything that it started
IDLE = 0.05  # of a processor: less is waiting
ADDRESSES = 12 << 30  # bytes beyond the parent's: a last guard, for memory in use is watched
WRITTEN = 1 << 30  # bytes of a file, stdout and stderr too
TICK, PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")


def enter(request: dict[str, Any]) -> None:
    """Make a forked child a process of its own: session, folder, streams and limits."""
    os.setsid()
    os.chdir(request["folder"])
    for number, (path, flags) in enumerate(
        (
            (os.devnull, os.O_RDONLY),
            (request["stdout"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
            (request["stderr"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        )
    ):
        opened = os.open(path, flags)
        os.dup2(opened, number)
        os.close(opened)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * PAGE
    resource.setrlimit(resource.RLIMIT_AS, (size + ADDRESSES, size + ADDRESSES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (WRITTEN, WRITTEN))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.default_int_handler)


def session(leader: int) -> dict[int, tuple[float, int, int]]:
    """Processor seconds, resident bytes and threads of each process that runs in a session."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == leader and fields[0] != "Z":
                spent = sum(map(int, fields[11:15])) / TICK
                found[int(name)] = spent, int(fields[21]) * PAGE, int(fields[17])
    return found


def kill_session(leader: int) -> None:
    """End all that runs in a session."""
    for process in session(leader):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def wait(child: int, request: dict[str, Any], base: int, seconds: float) -> tuple[str, tuple[int, Any] | None]:
    """Watch a child until it ends (""), or does what it may not: time, idle, memory or processes."""
    started = moved = looked = time.monotonic()
    spent = 0.0
    while True:
        ended, status, usage = os.wait4(child, os.WNOHANG)
        if ended:
            return "", (status, usage)
        now = time.monotonic()
        if now - looked > SCAN:
            looked = now
            running = session(child)
            total = sum(cpu for cpu, _, _ in running.values())
            if total - spent > IDLE:
                spent, moved = total, now
            if max((memory for _, memory, _ in running.values()), default=0) > base + request["memory"]:
                return "memory", None
            if sum(threads for _, _, threads in running.values()) > request["processes"]:
                return "processes", None
            if total > seconds or now - started > 8 * seconds + request["idle"]:
                return "time", None
            if now - moved > request["idle"]:
                return "idle", None
        time.sleep(POLL)


def watch(child: int, request: dict[str, Any]) -> dict[str, Any]:
    """What became of a child: its exit status, what it used, why it was stopped, and whether Ctrl-C was enough."""
    base = int(Path("/proc/self/statm").read_text().split()[1]) * PAGE
    started = time.monotonic()
    stopped, ended = wait(child, request, base, request["seconds"])
    interrupted = False
    if stopped in ("time", "idle"):
        os.kill(child, signal.SIGINT)
        _, ended = wait(child, request, base, request["seconds"] + request["grace"])
        interrupted = ended is not None
    left = 0
    if ended is None:
        kill_session(child)
        _, status, usage = os.wait4(child, 0)
    else:
        status, usage = ended
        patience = time.monotonic() + request["grace"]
        while (left := len(session(child))) and time.monotonic() < patience:
            time.sleep(SCAN)
        kill_session(child)
    return {
        "code": os.waitstatus_to_exitcode(status),
        "seconds": usage.ru_utime + usage.ru_stime,
        "wall": time.monotonic() - started,
        "memory": max(0, usage.ru_maxrss * 1024 - base),
        "stopped": stopped,
        "interrupted": interrupted,
        "left_running": left,
    }


def serve(requests: IO[str], answers: IO[str]) -> list[str] | None:
    """Answer requests; returns in a child, with its arguments, and at the end, with None."""
    answers.write("ready\n")
    answers.flush()
    for line in requests:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            answers.close()
            enter(request)
            return list(request["arguments"])
        answers.write(json.dumps(watch(child, request)) + "\n")
        answers.flush()
    return None


def command(arguments: list[str]) -> None:
    """Run a command line."""
    from dyncollapse.commands.main import main

    # With colour, click sends the codes that a name holds, as it would to a terminal.
    main(arguments, prog_name="dyncollapse", color=True)


if __name__ == "__main__":
    warm(LIBRARIES)
    settle()
    arguments = serve(sys.stdin, os.fdopen(os.dup(1), "w"))
    if arguments is not None:
        finish(partial(command, arguments))
