"""Programs in forks of one process that has imported the package: to start Python with PyTorch takes seconds.

`start` and `run` take what follows `python` on a command line: `-W error` or nothing, then -c, -m or a script, and its
arguments. What Python and its libraries read when they start (PYTHON* and OMP_* in the environment) stays as the server
found it: a test of such settings, or of imports, starts Python itself.
"""

import atexit
import fcntl
import json
import os
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Any

from helpers.waiting import ONE_THREAD, PATIENCE

TESTS = Path(__file__).parent.parent
NUMBER = struct.Struct("i")


class Program:
    """A program in a fork, with what tests use of `subprocess.Popen`."""

    def __init__(self, ends: int, stdout: IO[str] | None) -> None:
        self.stdout, self.returncode, self._ends = stdout, None, ends
        self.pid = self._number()

    def _number(self) -> int:
        found = os.read(self._ends, NUMBER.size)
        assert found, "the server of forks has died"
        return NUMBER.unpack(found)[0]

    def poll(self) -> int | None:
        """The exit code, negative for a signal, or None while it runs."""
        return self._end(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end, and return the exit code."""
        code = self._end(timeout)
        if code is None:
            raise subprocess.TimeoutExpired("fork", timeout or 0)
        return code

    def _end(self, timeout: float | None) -> int | None:
        if self.returncode is None:
            with selectors.DefaultSelector() as selector:
                selector.register(self._ends, selectors.EVENT_READ)
                if selector.select(timeout):
                    self.returncode = os.waitstatus_to_exitcode(self._number())
                    os.close(self._ends)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal while it runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


def start(
    command: Sequence[object],
    cwd: Path | str | None = None,
    env: Mapping[str, str] | None = None,
    stdin: int | IO[Any] = subprocess.DEVNULL,
    stdout: int | IO[Any] = subprocess.DEVNULL,
    stderr: int | IO[Any] = subprocess.DEVNULL,
    start_new_session: bool = False,
) -> Program:
    """Start a program; a stream is a file, a descriptor or DEVNULL, and stdout may be PIPE, for text."""
    request = {
        "command": [os.fspath(word) if isinstance(word, os.PathLike) else str(word) for word in command],
        "folder": os.fspath(cwd or os.getcwd()),
        "environment": dict(os.environ if env is None else env),
        "session": start_new_session,
    }
    ends, telling = os.pipe()
    reading, writing = os.pipe() if stdout == subprocess.PIPE else (None, None)
    with tempfile.TemporaryFile() as file, open(os.devnull, "r+b") as nothing:
        file.write(json.dumps(request).encode())
        file.seek(0)
        files = [file, telling, stdin, stdout if writing is None else writing, stderr]
        files = [nothing if given == subprocess.DEVNULL else given for given in files]
        numbers = [given if isinstance(given, int) else given.fileno() for given in files]
        socket.send_fds(_server(), [b"."], numbers)
    for sent in (telling, writing):
        if sent is not None:
            os.close(sent)
    return Program(ends, None if reading is None else open(reading))


@contextmanager
def running(command: Sequence[object], folder: Path, **given: Any) -> Iterator[tuple[Program, Callable[[], str]]]:
    """A program in a folder, and what it has said on stderr so far, which a file there takes; killed at the end."""
    with open(folder / "stderr", "wb") as file:
        program = start(command, folder, stderr=file, **given)
    try:
        yield program, lambda: (folder / "stderr").read_text()
    finally:
        program.kill()
        program.wait()
        if program.stdout is not None:
            program.stdout.close()


def run(command: Sequence[object], **given: Any) -> "subprocess.CompletedProcess[str]":
    """Run a program to its end; both streams as text."""
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        program = start(command, stdout=stdout, stderr=stderr, **given)
        try:
            program.wait(PATIENCE)
        finally:
            program.kill()
        said = [stream.read() for stream in (stdout, stderr) if not stream.seek(0)]
    return subprocess.CompletedProcess(command, program.returncode, *said)


def run_together(*commands: Sequence[object], envs: Sequence[Mapping[str, str] | None] | None = None) -> None:
    """Run programs that wait for each other to the end of all; AssertionError where one fails."""
    _server()  # before threads ask for it
    with ThreadPoolExecutor(len(commands)) as threads:
        done = list(threads.map(lambda command, env: run(command, env=env), commands, envs or [None] * len(commands)))
    assert [program.returncode for program in done] == [0] * len(done), "\n".join(program.stderr for program in done)


@cache
def _server() -> socket.socket:
    """A connection to the server when it has imported everything."""
    client = prepare()
    assert client.recv(1), "the server of forks does not start"
    return client


@cache
def prepare() -> socket.socket:
    """A connection to the server, which ends when all processes that share out the tests have left it.

    It is started unless it runs, and not waited for.
    """
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", f"of-{os.getpid()}")
    folder = Path(tempfile.gettempdir()) / f"forks-{run}"
    folder.mkdir(mode=0o700, exist_ok=True)
    client = socket.socket(socket.AF_UNIX)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            client.connect(str(folder / "server"))
        except OSError:  # nobody has started it
            _start_server(folder)
            client.connect(str(folder / "server"))
    atexit.register(client.close)  # before it is waited for
    return client


def _start_server(folder: Path) -> None:
    address = folder / "server"
    address.unlink(missing_ok=True)
    path = os.pathsep.join([str(TESTS), *filter(None, sys.path)])
    environment = {**ONE_THREAD, "PYTHONPATH": path}
    environment.pop("PYTHONWARNINGS", None)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        listener.listen()
        number = listener.fileno()
        # What is imported must not warn, whatever is done about warnings later.
        command = [sys.executable, "-W", "error", "-m", "helpers.fork_server", str(number)]
        process = subprocess.Popen(command, env=environment, pass_fds=[number], start_new_session=True)
    atexit.register(_end, process, folder)


def _end(process: "subprocess.Popen[bytes]", folder: Path) -> None:
    process.wait()
    shutil.rmtree(folder, ignore_errors=True)  # a server that did not start has left it to the next
