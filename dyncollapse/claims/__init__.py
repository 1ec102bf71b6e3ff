"""The executable paper: every lemma, theorem and corollary, and what goes beyond them, as a measured check."""

from dyncollapse.claims import (
    beyond,
    beyond_deep,
    bilinear,
    escape,
    finite,
    losses,
    measures,
    paper,
    paper_deep,
    sgd,
    views,
)
from dyncollapse.claims.claim import Checked, Claim, Measured, as_values, assume, run_check

_MODULES = (paper, paper_deep, beyond, views, bilinear, beyond_deep, escape, sgd, finite, losses, measures)
CLAIMS = tuple(value for module in _MODULES for value in vars(module).values() if isinstance(value, Claim))

__all__ = ["CLAIMS", "Checked", "Claim", "Measured", "as_values", "assume", "run_check"]
