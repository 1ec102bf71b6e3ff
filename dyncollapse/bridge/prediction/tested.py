"""What the test of a direction decides, in words: shared signal for two-sided views, rho below 1 for one-sided ones."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tested:
    """Words for directions that pass a test, and for the others.

    Attributes:
        pass_it: What several directions do that pass, as "share signal".
        one_passes: Label of those that pass.
        others: Label of the others.
        column: Heading of the number of those that pass.
        other_column: Heading of the number of the others.
    """

    pass_it: str
    one_passes: str
    others: str
    column: str
    other_column: str


# A clean anchor and its view may be correlated where rho is above 1, and a loss that sees their covariance grows there.
WORDS = {
    "two-sided": Tested("share signal", "shares signal", "no shared signal seen", "shared", "suppressed"),
    "one-sided": Tested(
        "have rho below 1 beyond its error",
        "rho below 1 beyond its error",
        "rho not below 1 beyond its error",
        "rho < 1",
        "others",
    ),
}
