"""A hundred tries with a fixed seed: no traceback, nothing endless, one line for whatever is refused."""

import re
import sys

import pytest

from fuzz.campaign import campaign
from fuzz.runner import Runner

TRIES = 120
# Faults that are known and not mended: class, what the violation says, and why it stands.
KNOWN: tuple[tuple[str, str, str], ...] = ()


@pytest.mark.skipif(sys.platform != "linux", reason="reads what processes use from /proc")
def test_no_try_violates_what_commands_promise(tmp_path):
    runner = Runner(tmp_path / "tries")
    try:
        found = campaign(runner, TRIES)
    finally:
        runner.close()
    new = []
    for kind, count in found.items():
        assert count.codes[0], f"{kind}: no command took its input, so that nothing was tried beyond reading it"
        new += [
            f"{kind}: {signature}\n  python -m fuzz --again '{tried.as_json()}'"
            for signature, tried in count.faults.items()
            if not all(_known(kind, part) for part in signature.split("; "))
        ]
    assert not new, "\n".join(new)


def _known(kind, violation):
    return any(known == kind and re.search(pattern, violation) for known, pattern, _ in KNOWN)
