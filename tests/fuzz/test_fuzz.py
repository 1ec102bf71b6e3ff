"""A hundred tries with a fixed seed: no traceback, nothing endless, one line for whatever is refused."""

import re
import sys

import pytest

from fuzz.campaign import campaign
from fuzz.runner import Runner

TRIES = 120
# Faults that are known and not mended: class, what the violation says, and why it stands.
KNOWN: tuple[tuple[str, str, str], ...] = (
    ("options", "^warning: .*dataloader", "torch warns of more worker processes than cores"),
    (
        "checkpoints",
        "^traceback: bridge/(loaded|trainer)",
        "what a checkpoint holds is not checked before it is loaded",
    ),
    ("run folders", "^traceback: bridge/(experiments|journal|tables)", "a run's JSON is not checked against a schema"),
    ("spaces", "^control: on stdout", "--space is printed as it is given"),
    ("image folders", "^left: here/out", "--strict refuses an image after the run's folder was begun"),
)


@pytest.mark.skipif(sys.platform != "linux", reason="reads what processes use from /proc")
def test_no_try_violates_what_commands_promise(tmp_path):
    runner = Runner(tmp_path / "tries")
    try:
        found = campaign(runner, TRIES)
    finally:
        runner.close()
    assert not [kind for kind, count in found.items() if not count.codes[0]], "a class of which no input was taken"
    new = [
        f"{kind}: {signature}\n  python -m fuzz --again '{tried.as_json()}'"
        for kind, count in found.items()
        for signature, tried in count.faults.items()
        if not all(_known(kind, part) for part in signature.split(" && "))
    ]
    assert not new, "\n".join(new)


def _known(kind, violation):
    return any(known == kind and re.search(pattern, violation) for known, pattern, _ in KNOWN)
