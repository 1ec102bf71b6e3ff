"""A hundred tries with a fixed seed: no traceback, nothing endless, one line for whatever is refused."""

import sys

import pytest

from fuzz.campaign import campaign
from fuzz.runner import Runner

TRIES = 120


@pytest.mark.skipif(sys.platform != "linux", reason="reads what processes use from /proc")
@pytest.mark.slow
def test_no_try_violates_what_commands_promise(tmp_path):
    runner = Runner(tmp_path / "tries")
    try:
        found = campaign(runner, TRIES)
    finally:
        runner.close()
    assert not [kind for kind, count in found.items() if not count.codes[0]], "a class of which no input was taken"
    faults = [
        f"{kind}: {signature}\n  python -m fuzz --again '{tried.as_json()}'"
        for kind, count in found.items()
        for signature, tried in count.faults.items()
    ]
    assert not faults, "\n".join(faults)
