"""The executable paper: every lemma, theorem and corollary, and what goes beyond them, as a measured check.

Each module holds claims of one subject; a claim says what it measures, its bound and what it expects.
"""

from dyncollapse.claims import (
    beyond_deep,
    beyond_one_layer,
    bilinear,
    escape,
    finite,
    losses,
    measures,
    paper_deep,
    paper_one_layer,
    sgd,
    views,
)
from dyncollapse.claims.check import Checked, Claim, Measured, as_values, assume, run_check

_MODULES = (
    paper_one_layer,
    paper_deep,
    beyond_one_layer,
    views,
    bilinear,
    beyond_deep,
    escape,
    sgd,
    finite,
    losses,
    measures,
)
CLAIMS = tuple(value for module in _MODULES for value in vars(module).values() if isinstance(value, Claim))

__all__ = ["CLAIMS", "Checked", "Claim", "Measured", "as_values", "assume", "run_check"]
