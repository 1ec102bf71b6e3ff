"""The executable paper: every lemma, theorem and corollary, and what goes beyond them, as a measured check."""

from dyncollapse.claims import beyond, beyond_deep, paper, paper_deep
from dyncollapse.claims.claim import Checked, Claim, Measured, as_values, assume, run_check

_MODULES = (paper, paper_deep, beyond, beyond_deep)
CLAIMS = tuple(value for module in _MODULES for value in vars(module).values() if isinstance(value, Claim))

__all__ = ["CLAIMS", "Checked", "Claim", "Measured", "as_values", "assume", "run_check"]
