"""What the tests of all commands ask of them."""

import re
from contextlib import contextmanager

import pytest

SMALL = ["--dim", "4", "--batch-size", "16", "--pool", "64", "--steps", "30", "--runs", "2", "--flow-batches", "2"]

# How long something takes, and how far it is: said on a slow machine, and not on a fast one.
PACE = re.compile(
    r"This takes roughly .*; Ctrl-C keeps what is done until then\."
    r"|[\w ]+: (under way for .*|\d+%, about .* left)"
    r"|\d+ of \d+ \w+(, .*)?"
)


@contextmanager
def small_disk(size):
    """Let the system refuse what a file has beyond so many bytes, as a full disk does."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def messages(stderr):
    """The lines on stderr, without those that depend on how fast the machine is."""
    return [line for line in stderr.splitlines() if not PACE.fullmatch(line)]


def refused(result):
    """The one line of a refusal."""
    assert result.exit_code == 2, (result.stderr, result.exception)
    assert result.stdout == ""
    (line,) = messages(result.stderr)
    assert line.startswith("dyncollapse: ")
    return line


def changed(defaults, *options):
    """The words of a command: defaults without the options that are given anew, and these."""
    words, kept, again = [str(word) for word in options], [], False
    names = {word.partition("=")[0] for word in words if word.startswith("--")}
    for word in map(str, defaults):
        again = word in names if word.startswith("--") else again
        kept += [] if again else [word]
    return [*kept, *words]
