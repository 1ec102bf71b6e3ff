"""Commands killed at drawn moments: nothing half-written, nothing lost, nothing blocked. `make kills` does more."""

import os

import pytest
from kills import CASES, killed


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("name", CASES)
@pytest.mark.slow
def test_a_killed_command_leaves_whole_files_and_is_gone_on_with(name):
    moments = list(killed(name, 2, seed=1))
    assert len(moments) == 2
    assert any(alive for _, alive, _ in moments)
    assert not [wrong for _, _, wrong in moments if wrong]
