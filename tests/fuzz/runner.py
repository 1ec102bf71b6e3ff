"""Command lines run in forks of one warmed process, each in a folder of its own, and judged."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from helpers import forks
from helpers.waiting import ONE_THREAD

MEMORY = 1 << 30  # bytes beyond what the warmed process has, and what this one takes beside it to make a try
STREAM = 1 << 26  # bytes of stdout, and of stderr, that are judged
SECONDS = 5.0  # of processor time, beyond what a valid input takes
MAKING = 30.0  # seconds by the clock, for what takes milliseconds on a machine with nothing else to do
PROCESSES = 200
ALLOWED = (0, 1, 2, 130)
FOREIGN = re.compile(r"site-packages|[A-Za-z]+Warning\b|^\[[WE]\d|^\[rank|libpng|\bcore dumped", re.MULTILINE)


@dataclass(frozen=True)
class Try:
    """One command line in a folder that holds copies of `needs`, changed by `steps`, plain values for `make.change`."""

    kind: str
    arguments: tuple[str, ...]
    needs: tuple[str, ...] = ()
    steps: tuple[Any, ...] = ()
    large: bool = False  # asks for work that may rightly take long

    def as_json(self) -> str:
        """All of it, as `python -m fuzz --again` takes it."""
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Outcome:
    """What a command line did, and what of it is a violation: names with details."""

    code: int
    seconds: float
    memory: int
    stdout: str
    stderr: str
    slow: bool
    violations: dict[str, str] = field(default_factory=dict)

    @property
    def signature(self) -> str:
        """The violations in a line: alike for one fault."""
        return " && ".join(f"{name}: {text}" for name, text in self.violations.items())


@contextmanager
def bounded(more: int) -> Iterator[None]:
    """Let this process take so many more bytes of addresses in the block; beyond, Python raises MemoryError."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = [size + more, *(limit for limit in before if limit != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_AS, (min(limits), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


class Endless(BaseException):
    """A step did not end; no error that a step, or a library in it, would catch."""


@contextmanager
def timed(seconds: float) -> Iterator[None]:
    """Raise Endless where the block takes longer, in the main thread."""

    def end(*_: object) -> None:
        raise Endless

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Runner:
    """A warmed process, and a place for the folders of tries."""

    def __init__(self, place: Path) -> None:
        self.place, self.world, self.count = place, place / "world", 0
        self.world.mkdir(parents=True)
        reading, writing = os.pipe()
        environment = {**ONE_THREAD, "MPLCONFIGDIR": str(place / "matplotlib"), "XDG_CACHE_HOME": str(place / "cache")}
        environment.pop("PYTHONWARNINGS", None)
        command = ["-m", "fuzz.worker"]
        self.process = forks.start(command, place, environment, stdin=reading, stdout=subprocess.PIPE)
        os.close(reading)
        assert self.process.stdout is not None
        self.requests, self.answers = os.fdopen(writing, "w"), self.process.stdout
        assert self.answers.readline() == "ready\n"

    def close(self) -> None:
        """End the process."""
        self.requests.close()
        self.process.wait()
        self.answers.close()

    def call(self, arguments: Any, folder: Path, seconds: float = SECONDS, idle: float = SECONDS) -> dict[str, Any]:
        """Run a command line in a folder; what became of it, with both streams as bytes."""
        streams = {name: str(self.place / name) for name in ("stdout", "stderr")}
        limits = {"seconds": seconds, "idle": idle, "memory": MEMORY, "processes": PROCESSES, "grace": 3.0}
        request = {"arguments": list(arguments), "folder": str(folder), **streams, **limits}
        self.requests.write(json.dumps(request) + "\n")
        self.requests.flush()
        found = json.loads(self.answers.readline())
        return found | {name: _beginning(path) for name, path in streams.items()}

    def run(self, tried: Try, bound: float = SECONDS) -> Outcome:
        """Make a try's folder, run it there, judge it, and remove the folder.

        Raises MemoryError and Endless, naming the try, where that takes this process itself more than MEMORY or MAKING.
        """
        try:
            with bounded(MEMORY):
                return self.run_freely(tried, bound)
        except Endless:
            raise Endless(f"to make this try takes more than {MAKING:.0f} s: {tried.as_json()}") from None
        except MemoryError:
            raise MemoryError(
                f"to make or judge this try takes more than {MEMORY >> 20} MiB: {tried.as_json()}"
            ) from None

    def run_freely(self, tried: Try, bound: float) -> Outcome:
        """Do what `run` does, whatever that takes."""
        from fuzz.make import change

        self.count += 1
        outer = self.place / f"try-{self.count}"
        folder = outer / "here"
        folder.mkdir(parents=True)
        try:
            for name in tried.needs:
                source, target = self.world / name, folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
            with timed(MAKING):
                for step in tried.steps:
                    change(folder, step)
            before = _tree(outer)
            found = self.call(tried.arguments, folder, bound)
            return judge(tried, found, before, _tree(outer))
        finally:
            shutil.rmtree(outer, ignore_errors=True)


def _beginning(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(STREAM)


def _tree(folder: Path) -> dict[str, bool]:
    """Every name below a folder, and whether it is an empty folder; links are not followed."""
    found = {}
    for path, folders, files in os.walk(os.fsencode(folder)):
        found[os.fsdecode(os.path.relpath(path, os.fsencode(folder)))] = not folders and not files
        for name in files:
            found[os.fsdecode(os.path.relpath(os.path.join(path, name), os.fsencode(folder)))] = False
    return found


def judge(tried: Try, found: dict[str, Any], before: dict[str, bool], after: dict[str, bool]) -> Outcome:
    """Say what a try violated, from what became of its process and the names in its folder before and after."""
    stdout, stderr = (found[name].decode("utf-8", "backslashreplace") for name in ("stdout", "stderr"))
    wrong: dict[str, str] = {}
    slow = found["stopped"] == "time" and tried.large and found["interrupted"] and found["code"] in ALLOWED
    big = found["stopped"] == "memory" and tried.large
    if found["stopped"] and not slow and not big:
        wrong[found["stopped"]] = "stopped by Ctrl-C" if found["interrupted"] else "not stopped by Ctrl-C"
    elif found["memory"] > MEMORY and not tried.large:
        wrong["memory"] = f"more than {found['memory'] >> 30} GiB"
    if "Traceback (most recent call last)" in stderr:
        wrong["traceback"] = _where(stderr)
    elif found["code"] not in ALLOWED and not found["stopped"]:
        wrong["exit"] = str(found["code"])
    lines = stderr.splitlines()
    if (
        found["code"] == 2
        and "traceback" not in wrong
        and (len(lines) != 1 or not lines[0].startswith("dyncollapse: "))
    ):
        wrong["line"] = f"{len(lines)} lines on stderr, the first {lines[0][:100] if lines else ''!r}"
    if found["code"] == 2 and stdout:
        wrong["stdout"] = f"refused, and said {stdout[:60]!r}"
    if odd := sorted({c for c in stdout + stderr if (c < " " and c not in "\n\t") or "\x7f" <= c < "\xa0"}):
        wrong["control"] = f"on {'stdout' if set(odd) & set(stdout) else 'stderr'}"
    if "traceback" not in wrong and (foreign := FOREIGN.search(stderr)):
        wrong["warning"] = stderr[max(0, foreign.start() - 100) : foreign.end() + 100].replace("\n", " ")[-220:]
        wrong["warning"] = re.sub(r"\d+", "*", wrong["warning"])
    wrong |= _left(found["code"], stderr, before, after)
    if found["left_running"]:
        wrong["running"] = f"{found['left_running']} processes go on"
    if found["code"] == 0 and "--json" in tried.arguments and "traceback" not in wrong and _no_json(stdout):
        wrong["json"] = _no_json(stdout)
    return Outcome(found["code"], found["seconds"], found["memory"], stdout, stderr, slow or big, wrong)


def _where(stderr: str) -> str:
    """The last error of a traceback, and the innermost place in the package."""
    places = re.findall(r'File "[^"]*/dyncollapse/([^"]+)", line \d+, in (\S+)', stderr)
    lines = [
        line
        for line in stderr.splitlines()
        if re.match(r"[A-Za-z_][\w.]*(Error|Exception|Interrupt|Iteration|\w*)(:|$)", line)
    ]
    place = "{}:{}".format(*places[-1]) if places else "?"
    return f"{place}: {(lines or ['?'])[-1][:160]}"


def _left(code: int, stderr: str, before: dict[str, bool], after: dict[str, bool]) -> dict[str, str]:
    """What a command left that it should not: halves of files, empty folders, after a refusal what it does not name."""
    new = sorted(after.keys() - before.keys())
    wrong = {}
    if halves := [name for name in new if name.endswith((".partial", ".shorter", ".tmp"))]:
        wrong["partial"] = _names(halves)
    if empty := [name for name in new if after[name]]:
        wrong["empty"] = _names(empty)
    elif code == 2 and (unnamed := [name for name in new if f"{name.split('/')[:2][-1]}/" not in stderr]):
        wrong["left"] = _names(unnamed)
    return wrong


def _names(names: list[str]) -> str:
    """Some of them, with numbers and random parts left out."""
    return ", ".join(sorted({re.sub(r"tmp\w{8}|\d+", "*", name) for name in names}))[:200]


def _no_json(text: str) -> str:
    """Why a text is no JSON object, or an empty text."""

    def refuse(constant: str) -> None:
        raise ValueError(f"it holds {constant}")

    try:
        found = json.loads(text, parse_constant=refuse)
    except ValueError as error:
        return str(error)
    return "" if isinstance(found, dict) else f"a {type(found).__name__}"
