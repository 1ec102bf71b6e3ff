"""Claims: a statement of the theory, its source, and a check that measures it."""

import inspect
import math
import time as clock
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Measured:
    """A measured number and the bound that it has to respect.

    Attributes:
        value: The number; NaN respects no bound.
        bound: The bound.
        relation: "<=" or ">=", how `value` has to compare with `bound`.
    """

    value: float
    bound: float
    relation: str = "<="

    @property
    def holds(self) -> bool:
        """Whether value <= bound, or value >= bound."""
        return self.value <= self.bound if self.relation == "<=" else self.value >= self.bound


@dataclass(frozen=True)
class Claim:
    """A statement of the theory and the check that measures it.

    Attributes:
        name: The name for `dyncollapse verify --claim`.
        source: Where it stands in the paper, in docs/explanation/theory.md or elsewhere.
        statement: The statement, in one sentence.
        quantity: What is measured.
        explanation: How it is measured, and why the bound is what it is, in one paragraph.
        expected: False for a statement that is wrong as printed, whose check must fail.
        check: Measures it.
    """

    name: str
    source: str
    statement: str
    quantity: str
    explanation: str
    expected: bool
    check: Callable[[], Measured]


@dataclass(frozen=True)
class Checked:
    """The result of a claim's check.

    Attributes:
        claim: The claim.
        measured: The measured number; None where the check broke down.
        error: Why the check broke down, or measured nothing; None otherwise.
        seconds: How long it took.
    """

    claim: Claim
    measured: Measured | None
    error: str | None
    seconds: float

    @property
    def holds(self) -> bool:
        """Whether the measurement respects its bound; a check that broke down does not hold."""
        return self.measured is not None and self.measured.holds

    @property
    def surprising(self) -> bool:
        """Whether the claim does not behave as expected, or could not be checked."""
        return self.error is not None or self.holds != self.claim.expected


def claim(name: str, source: str, quantity: str, *, expected: bool = True) -> Callable[[Callable[[], Measured]], Claim]:
    """Turn a check into a Claim.

    Args:
        name: As in `Claim`.
        source: As in `Claim`.
        quantity: As in `Claim`.
        expected: As in `Claim`.

    Returns:
        A decorator of the check. The first paragraph of the check's docstring becomes the statement, the rest the
        explanation.
    """

    def decorate(check: Callable[[], Measured]) -> Claim:
        statement, _, explanation = (inspect.getdoc(check) or "").partition("\n\n")
        return Claim(
            name, source, " ".join(statement.split()), quantity, " ".join(explanation.split()), expected, check
        )

    return decorate


def assume(held: bool, what: str) -> None:
    """Stop a check whose measured number would mean nothing.

    Args:
        held: Whether a control or an assumption of the check holds.
        what: The assumption in words.

    Raises:
        RuntimeError: Where it does not hold.
    """
    if not held:
        raise RuntimeError(f"not so in this run: {what}")


def run_check(claim: Claim) -> Checked:
    """Measure one claim.

    Args:
        claim: The claim.

    Returns:
        The result. An exception becomes part of it, so that one broken check hides no other.
    """
    started = clock.perf_counter()
    try:
        measured, error = claim.check(), None
        if math.isnan(measured.value) or math.isnan(measured.bound):
            error = f"measured {measured.value}, bound {measured.bound}: no number, no measurement"
    except Exception as exception:
        measured, error = None, f"{type(exception).__name__}: {exception}"
    return Checked(claim, measured, error, clock.perf_counter() - started)


def as_values(checked: Checked) -> dict[str, Any]:
    """Turn a result into plain values for JSON; the numbers of a check that broke down are None."""
    claim, measured = checked.claim, checked.measured if checked.error is None else None
    return {
        "name": claim.name,
        "statement": claim.statement,
        "source": claim.source,
        "quantity": claim.quantity,
        "measured": None if measured is None or math.isinf(measured.value) else measured.value,
        "relation": None if measured is None else measured.relation,
        "bound": None if measured is None or math.isinf(measured.bound) else measured.bound,
        "holds": checked.holds,
        "expected": claim.expected,
        "error": checked.error,
        "seconds": checked.seconds,
    }
