import pytest

from dyncollapse.formats.columns import Column, chosen_columns
from dyncollapse.runtime.untrusted import Refused


def columns(*names):
    return [Column(name) for name in names]


@pytest.mark.parametrize(
    "name", ["id", "ID", "image_id", "sampleIndex", "Label", "labels", "target", "class", "Unnamed: 0", "true-class"]
)
def test_columns_about_samples_are_refused_by_name(name):
    with pytest.raises(Refused) as caught:
        chosen_columns(columns("emb_0", name, "emb_1"), None)
    assert str(caught.value) == f"has columns that are no dimensions: {name}; choose the dimensions with `key` 'emb_*'"


@pytest.mark.parametrize("name", ["z", "identity", "valid", "indexed", "classes_0", "f12", "0", "grid", "relabelled"])
def test_other_names_are_dimensions(name):
    assert chosen_columns(columns(name, "emb_1"), None) == [0, 1]


def test_keys_are_names_first_and_patterns_then():
    table = [*columns("a*", "a1", "a2", "b"), Column("text", "text")]
    assert chosen_columns(table, "a*") == [0]
    assert chosen_columns(table, "a?") == [0, 1, 2]
    assert chosen_columns(table, "b") == [3]
    with pytest.raises(Refused, match=r"no column named c\*; it has a\*, a1, a2, b, text"):
        chosen_columns(table, "c*")
    with pytest.raises(Refused, match=r"no numbers in text \(text\)"):
        chosen_columns(table, "*")


def test_columns_without_any_names_are_all_dimensions_and_chosen_by_number():
    assert chosen_columns(columns("", "", ""), None) == [0, 1, 2]
    assert chosen_columns(columns("", "", ""), "[12]") == [1, 2]


@pytest.mark.parametrize(
    ("names", "advice"),
    [
        (("id", "emb_1", "emb_12"), "choose the dimensions with `key` 'emb_*'"),
        (("", "0", "1"), "choose the dimensions with `key` '[0-9]*'"),
        (
            ("id", "x", "y"),
            "leave them out, or choose the dimensions by the beginning of their names, as `key` 'emb_*'",
        ),
        (("id",), "leave them out, or choose the dimensions by the beginning of their names, as `key` 'emb_*'"),
    ],
)
def test_the_advice_is_a_key_that_works(names, advice):
    with pytest.raises(Refused) as caught:
        chosen_columns(columns(*names), None)
    assert str(caught.value).endswith(f"; {advice}")
    if advice.startswith("choose"):
        assert chosen_columns(columns(*names), advice.split("'")[1]) == [1, 2]
