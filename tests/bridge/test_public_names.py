"""Names of `dyncollapse.bridge`: those of earlier versions, too."""

import pytest

import dyncollapse.bridge
from dyncollapse.bridge import DiagnosedSpaces, LoadedEncoder, diagnose_spaces


def test_every_public_name_is_there():
    assert all(getattr(dyncollapse.bridge, name) is not None for name in dyncollapse.bridge.__all__)


def test_earlier_names_are_those_of_today():
    from dyncollapse.bridge import Both, Loaded, diagnose_both

    assert (Both, Loaded, diagnose_both) == (DiagnosedSpaces, LoadedEncoder, diagnose_spaces)


def test_other_names_are_refused():
    with pytest.raises(AttributeError, match="nothing"):
        _ = dyncollapse.bridge.nothing
