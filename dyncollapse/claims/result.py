"""`verify` in Python: the claims as measured checks, with a result to question and tabulate."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from dyncollapse.claims.check import Checked, as_values
from dyncollapse.claims.run import check_claims, chosen_claims, claim_workers, in_order
from dyncollapse.runtime.extras import as_frame
from dyncollapse.runtime.results import html_table, plain

if TYPE_CHECKING:
    import pandas


class VerifyResult:
    """What the checks of claims measured.

    Attributes:
        checked: The result of each claim, in the order of the claims.

    Examples:
        >>> result = verify(["lemma-1", "theorem-2-as-stated"])
        >>> result
        VerifyResult(2 of 2 claims behave as expected; theorem-2-as-stated does not hold, as expected)
        >>> [(row["name"], row["holds"], row["expected"]) for row in result.rows()]
        [('lemma-1', True, True), ('theorem-2-as-stated', False, False)]
    """

    def __init__(self, checked: Sequence[Checked]) -> None:
        """Keep results of claims.

        Args:
            checked: One result per claim.
        """
        self.checked = tuple(checked)

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the claims that behave unlike expected, or that could not be checked."""
        return tuple(one.claim.name for one in self.checked if one.surprising)

    @property
    def sentence(self) -> str:
        """How many claims behave as expected, and which of them do not hold, as expected."""
        behaving = len(self.checked) - len(self.failed)
        false = [one.claim.name for one in self.checked if not (one.holds or one.surprising)]
        known = f"; {', '.join(false)} {'does' if len(false) == 1 else 'do'} not hold, as expected" if false else ""
        return f"{behaving} of {len(self.checked)} claims behave as expected{known}."

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per claim.

        Returns:
            Rows with name, statement, source, quantity, the measured number, relation and bound (None where the check
            broke down), whether it holds and whether that is expected, error and seconds.
        """
        return [plain(as_values(one)) for one in self.checked]

    def to_dict(self) -> dict[str, Any]:
        """Return what `dyncollapse verify --json` prints.

        Returns:
            The rows under "claims".
        """
        return {"claims": self.rows()}

    def to_pandas(self) -> "pandas.DataFrame":
        """Return `rows` as a data frame.

        Returns:
            One row per claim.

        Raises:
            ValueError: If pandas is not installed; the extra `dyncollapse[tables]` installs it.
        """
        return as_frame(self.rows())

    def __repr__(self) -> str:
        """How many claims behave as expected, and the first that do not."""
        names = [*self.failed[:3], *(["..."] if len(self.failed) > 3 else [])]
        unlike = f"; unlike expected: {', '.join(names)}" if names else ""
        return f"VerifyResult({self.sentence.removesuffix('.')}{unlike})"

    def _repr_html_(self) -> str:
        """The sentence and a short row per claim, for notebooks."""
        shown = ("name", "source", "measured", "relation", "bound", "holds", "expected", "error")
        return html_table([self.sentence], [{name: row[name] for name in shown} for row in self.rows()], most=200)


def verify(
    claim: str | Sequence[str] = (),
    *,
    workers: int | None = None,
    progress: Callable[[str, float, float], None] | None = None,
) -> VerifyResult:
    """Measure the claims of the paper and beyond it, as `dyncollapse verify` does, and return what each measured.

    Nothing is printed or saved. A claim that behaves unlike expected raises nothing: see `VerifyResult.failed`.

    Args:
        claim: Name of a claim, or several; all by default.
        workers: Claims checked at a time, in processes of one core each: by default the number of cores, and 1 if
            claims are named. With 1, this process checks them. A script that starts processes puts its own work under
            `if __name__ == "__main__":`.
        progress: Called as progress("claims", done, total).

    Returns:
        The results, in the order of the claims.

    Raises:
        SettingError: For unknown names, and a number of workers that this machine cannot run. One line.

    References:
        Jing et al. (2022), arXiv:2110.09348; docs/results.md lists the claims.

    Examples:
        >>> result = verify("lemma-1")
        >>> result.failed, result.checked[0].holds
        ((), True)
        >>> verify("lemma-99")
        Traceback (most recent call last):
            ...
        dyncollapse.runtime.settings.SettingError: claim is lemma-99; ...
    """
    names = [claim] if isinstance(claim, str) else list(claim)
    chosen = chosen_claims(names)
    checked = list[Checked]()
    with _one_thread():
        for result in check_claims(chosen, claim_workers(chosen, workers, named=bool(names))):
            checked.append(result)
            if progress is not None:
                progress("claims", len(checked), len(chosen))
    return VerifyResult(in_order(checked, chosen))


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread for single operations: sums in one order everywhere, and small matrices gain nothing from more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
