"""What the tests of all commands ask of them."""

import resource
from contextlib import contextmanager

SMALL = ["--dim", "4", "--batch-size", "16", "--pool", "64", "--steps", "30", "--runs", "2", "--flow-batches", "2"]


@contextmanager
def small_disk(size):
    """Let the system refuse what a file has beyond so many bytes, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def refused(result):
    """The one line of a refusal."""
    assert result.exit_code == 2, (result.stderr, result.exception)
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("dyncollapse: ")
    return line
