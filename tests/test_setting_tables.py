"""The documents' tables of settings name every setting once, as the help does; test_quotes.py compares them."""

from pathlib import Path

import pytest
from setting_tables import PREFIX, RECORDS, setting_table

from dyncollapse.runtime.records import settings_of
from dyncollapse.runtime.settings import option

DOCUMENT = (Path(__file__).parent.parent / "docs" / "reference" / "settings.md").read_text()


@pytest.mark.parametrize("name", RECORDS)
def test_every_setting_has_a_row(name):
    table = setting_table(PREFIX + name)
    assert table in DOCUMENT
    rows = [line.split(" | ") for line in table.splitlines()[2:] if not line.startswith("| **")]
    settings = [one for one in settings_of(RECORDS[name]).values() if one.text]
    assert sorted(row[0].removeprefix("| ").split(",")[0] for row in rows) == sorted(
        f"`{option(one.name)}`" for one in settings
    )
    assert all(len(row) == 4 for row in rows)
    if name == "simulate":
        (row,) = [row for row in rows if row[0] == "| `--batch-size`"]
        assert row[1:] == ["between 2 and 1e9 pairs", "128 pairs", "Pairs in a batch, N. |"]


def test_a_group_has_a_table_of_its_own():
    rows = setting_table("settings_encoder_projector").splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == [
        *("--d0", "--projector-prefix", "--projector-activation", "--projector-last")
    ]
    with pytest.raises(KeyError):
        setting_table("settings_encoder_colour")
