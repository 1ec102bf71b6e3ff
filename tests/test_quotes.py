"""Numbers that the documents quote are those of the files that commands write, and those agree with the code."""

import pytest
from mutate import MUTATIONS, ROOT, attempt, mutated
from quotes import (
    CODE,
    COMMAND,
    DOCUMENTS,
    HIDDEN,
    MEASURED,
    QUOTE,
    TABLE,
    measured,
    quotes,
    recorded,
    refreshed,
    restated,
    value,
    written,
)

from dyncollapse.claims import CLAIMS

TEXTS = {document: document.read_text() for document in DOCUMENTS}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_quoted_numbers_and_tables_are_those_of_their_files(document):
    for number, source, where in quotes(TEXTS[document]):
        assert float(number) == float(restated(value(source, where), number)), (source, where)
    assert refreshed(TEXTS[document]) == TEXTS[document]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_every_quote_is_understood(document):
    # A number apart from its comment, or a comment with a slip in it, would otherwise be passed over.
    assert TEXTS[document].count("<!--=") == len(QUOTE.findall(TEXTS[document]))
    assert TEXTS[document].count("<!-- table") == TEXTS[document].count("<!-- end -->")
    for word, pattern in {"table": TABLE, "command": COMMAND, "record": HIDDEN, "code": CODE}.items():
        assert TEXTS[document].count(f"<!-- {word} ") == len(pattern.findall(TEXTS[document])), word


def test_results_quote_claims_mutations_and_figures():
    sources = {source for text in TEXTS.values() for _, source, _ in quotes(text)}
    assert {"verify", "mutations", "fig03_strong_augmentation"} <= sources


def test_recorded_claims_are_those_of_the_code():
    keys = ("name", "source", "statement", "quantity", "expected")
    recorded = [tuple(claim[key] for key in keys) for claim in measured("verify")]
    assert recorded == [tuple(getattr(claim, key) for key in keys) for claim in CLAIMS], "run `make results`"
    assert all(claim["error"] is None and claim["holds"] is claim["expected"] for claim in measured("verify"))


def test_recorded_texts_are_of_the_commands_and_blocks_in_the_documents():
    heads = {path.stem: path.read_text().split("\n")[0] for path in MEASURED.glob("*.txt")}
    assert heads == {name: line for name, (line, _) in recorded().items()}, "run `make results`"
    assert heads


@pytest.mark.parametrize(
    ("number", "digits", "text"),
    [
        *((0.011523, 2, "0.012"), (345.2, 3, "345"), (24.63, 2, "25"), (3.487e-16, 2, "3.5e-16")),
        *((461.0, 3, "461"), (1.0, 1, "1"), (1.0, 2, "1.0"), (-1.135, 3, "-1.14"), (0.09996, 2, "0.10")),
        *((9.96, 2, "10"), (2.069e-5, 2, "2.1e-5"), (0.0, 2, "0"), (68.0, 2, "68"), (13810.0, 5, "13810")),
    ],
)
def test_numbers_are_written_with_their_digits(number, digits, text):
    assert written(number, digits) == text


@pytest.mark.parametrize(
    ("number", "quoted", "text"),
    [
        *((0.011523, "0.01", "0.01"), (345.2, "7", "345"), (63.0, "6", "63"), (3.487e-16, "1.0e-16", "3.5e-16")),
        *((-1.135, "-2.50", "-1.14"), (0.09996, "0.10", "0.10"), (0.0, "0.0", "0"), (411.98, "412", "412")),
    ],
)
def test_numbers_are_restated_as_they_were_quoted(number, quoted, text):
    assert restated(number, quoted) == text


def test_a_wrong_number_is_set_right():
    text = "all 3<!--= verify count -->, at 0.05<!--= verify theorem-2-as-stated bound -->."
    assert (
        refreshed(text)
        == f"all {len(CLAIMS)}<!--= verify count -->, at 0.05<!--= verify theorem-2-as-stated bound -->."
    )


@pytest.mark.parametrize(
    ("source", "where", "error"),
    [
        *(("verify", "no-such-claim measured", KeyError), ("verify", "lemma-1 colour", KeyError)),
        *(("mutations", "lost", KeyError), ("fig03_strong_augmentation", "no such words", ValueError)),
        ("no_such_figure", ".", FileNotFoundError),
    ],
)
def test_a_quote_without_a_source_is_refused(source, where, error):
    with pytest.raises(error):
        value(source, where)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation["what"])
def test_wrong_formula_still_has_its_place_and_its_claims(mutation):
    package = ROOT / "dyncollapse"
    assert mutated(mutation, package) != (package / mutation["file"]).read_text()
    assert set(mutation["claims"]) <= {claim.name for claim in CLAIMS}
    compile(mutated(mutation, package), mutation["file"], "exec")


def test_recorded_wrong_formulas_are_those_listed_and_caught_as_listed():
    recorded = measured("mutations")
    assert [(one["what"], one["file"]) for one in recorded] == [(m["what"], m["file"]) for m in MUTATIONS]
    assert all(bool(one["caught"]) == (one["reason"] is None) for one in recorded)
    assert len(recorded) >= 30


def test_a_wrong_formula_is_caught():
    one = next(mutation for mutation in MUTATIONS if mutation["claims"] == ["effective-rank"])
    assert attempt(one)["caught"] == ["effective-rank"]


def test_a_formula_that_moved_is_refused(tmp_path):
    (tmp_path / "measures.py").write_text("x = 1\nx = 1\n")
    for old, count in (("x = 1", 2), ("y = 1", 0)):
        with pytest.raises(ValueError, match=f"{count} times; a mutation needs it once"):
            mutated({"file": "measures.py", "old": old, "new": "x = 2"}, tmp_path)
