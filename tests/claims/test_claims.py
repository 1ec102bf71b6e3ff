import math
import re
from pathlib import Path

import pytest
from quotes import measured

from dyncollapse import claims
from dyncollapse.claims import CLAIMS, Checked, Measured, assume, run_check
from dyncollapse.claims.check import claim

# Every statement of the paper that its claims have to cover, in the paper's order.
PAPER = [
    *("lemma-1", "lemma-2", "lemma-2-psd", "theorem-1", "corollary-1"),
    *("lemma-3", "lemma-4", "lemma-5", "lemma-6", "lemma-7", "conserved-imbalance"),
    *("theorem-2-as-stated", "theorem-2-with-gaps", "theorem-3", "corollary-2", "appendix-c", "appendix-c-relu"),
]


@claim("sound", "a source", "a quantity")
def sound():
    """One statement.

    Why it holds,
    in two lines.
    """
    return Measured(1.0, 2.0)


def checked(measure, *, expected=True):
    return run_check(claim("made-up", "here", "nothing", expected=expected)(measure))


RECORDED = {claim["name"]: claim for claim in measured("verify")}


@pytest.mark.parametrize("candidate", CLAIMS, ids=lambda candidate: candidate.name)
def test_claim_behaves_as_expected(candidate):
    result = run_check(candidate)
    assert result.error is None
    assert not result.surprising, result.measured
    assert math.isfinite(result.measured.value)
    assert math.isfinite(result.measured.bound)
    # What the documents quote is what the code gives, up to another processor's rounding; else `make results`.
    recorded = RECORDED[candidate.name]
    assert result.measured.relation == recorded["relation"]
    assert result.measured.bound == pytest.approx(recorded["bound"], rel=0.2)
    slack = max(abs(recorded["bound"]) / 4, abs(recorded["measured"]) / 10)
    assert result.measured.value == pytest.approx(recorded["measured"], rel=0, abs=slack)


@pytest.mark.parametrize("candidate", CLAIMS, ids=lambda candidate: candidate.name)
def test_claim_says_what_it_is(candidate):
    for text in (candidate.name, candidate.source, candidate.statement, candidate.quantity, candidate.explanation):
        assert text == " ".join(text.split()) != ""
    assert candidate.statement.endswith(".")


def test_the_paper_is_covered_in_its_order():
    names = [candidate.name for candidate in CLAIMS]
    assert names[: len(PAPER)] == PAPER
    assert len(set(names)) == len(names)


# The sections of docs/explanation/one-axis.md, by which claims on all losses refer to it.
SECTIONS = {"moments", "rest", "weight-decay", "projector", "probe", "limits"}


def test_claims_on_all_losses_name_a_section_each():
    found = re.findall(r"one-axis.md, ([a-z-]+)\)", "\n".join(candidate.source for candidate in CLAIMS))
    assert set(found) == SECTIONS
    assert len(found) == sum("one-axis" in candidate.source for candidate in CLAIMS) >= 20


def test_every_module_of_claims_is_listed():
    folder = Path(claims.__file__).parent
    holding = {path.stem for path in folder.glob("*.py") if "\n@claim(" in path.read_text()}
    assert {candidate.check.__module__.rsplit(".", 1)[1] for candidate in CLAIMS} == holding


def test_a_check_gives_the_same_numbers_again():
    lemma = next(candidate for candidate in CLAIMS if candidate.name == "lemma-5")
    assert run_check(lemma).measured == run_check(lemma).measured


def test_claim_is_read_off_its_docstring():
    assert (sound.name, sound.source, sound.quantity, sound.expected) == ("sound", "a source", "a quantity", True)
    assert (sound.statement, sound.explanation) == ("One statement.", "Why it holds, in two lines.")


@pytest.mark.parametrize(
    ("value", "relation", "holds"),
    [
        *((1.0, "<=", True), (2.0, "<=", True), (3.0, "<=", False), (-math.inf, "<=", True), (math.nan, "<=", False)),
        *((1.0, ">=", False), (2.0, ">=", True), (3.0, ">=", True), (math.inf, ">=", True), (math.nan, ">=", False)),
    ],
)
def test_measured_respects_its_bound(value, relation, holds):
    assert Measured(value, 2.0, relation).holds is holds


def test_a_bound_that_is_not_a_number_is_respected_by_none():
    assert not Measured(1.0, math.nan).holds
    assert not Measured(1.0, math.nan, ">=").holds


@pytest.mark.parametrize(("value", "holds"), [(1.0, True), (3.0, False)])
@pytest.mark.parametrize("expected", [True, False])
def test_surprise_is_a_difference_from_what_is_expected(value, holds, expected):
    result = checked(lambda: Measured(value, 2.0), expected=expected)
    assert isinstance(result, Checked)
    assert result.holds is holds
    assert result.surprising is (holds is not expected)
    assert result.seconds >= 0


# A statement that is wrong as printed must fail by its number: not a number, or no number, is a surprise there, too.
@pytest.mark.parametrize("expected", [True, False])
@pytest.mark.parametrize(("value", "bound"), [(math.nan, 2.0), (1.0, math.nan)])
def test_nan_is_a_surprise(value, bound, expected):
    result = checked(lambda: Measured(value, bound), expected=expected)
    assert result.surprising
    assert result.error == f"measured {value}, bound {bound}: no number, no measurement"


@pytest.mark.parametrize("expected", [True, False])
def test_a_check_that_breaks_down_is_a_surprise(expected):
    result = checked(lambda: Measured(1 / 0, 2.0), expected=expected)
    assert result.surprising
    assert not result.holds
    assert result.measured is None
    assert result.error == "ZeroDivisionError: division by zero"


def test_an_assumption_that_fails_stops_the_check():
    def check():
        assume(True, "fine")
        assume(False, "the control moved")
        return Measured(1.0, 2.0)

    assert checked(check).error == "RuntimeError: not so in this run: the control moved"


DOCS = Path(__file__).parent.parent.parent / "docs" / "explanation"
THEORY = [DOCS / "theory.md", DOCS / "beyond-the-paper.md", DOCS / "one-axis.md"]


def test_theory_names_every_claim_and_no_other():
    text = "\n".join(page.read_text() for page in THEORY)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    column, listed = None, set()
    for previous, row in zip([[""], *rows[:-1]], rows, strict=True):
        if len(row) != len(previous):  # another table
            column = row.index("check") if "check" in row else None
        if column is not None:
            listed |= set(re.findall(r"`([^`]+)`", row[column]))
    listed |= set(re.findall(r"--claim ([a-z][a-z0-9-]*)", text))
    names = {candidate.name for candidate in CLAIMS}
    assert len(listed) > len(names) / 2
    assert listed <= names
    assert {name for name in names if f"`{name}`" not in text} == set()
