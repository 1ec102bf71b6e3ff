"""The executable paper: every lemma, theorem and corollary, and results that go beyond them, as measured checks.

Each module holds the claims on one subject. A claim says what it measures, what the bound is and whether it must hold.
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
    self_distillation,
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
    self_distillation,
    measures,
)
CLAIMS = tuple(value for module in _MODULES for value in vars(module).values() if isinstance(value, Claim))

__all__ = ["CLAIMS", "Checked", "Claim", "Measured", "as_values", "assume", "run_check"]
