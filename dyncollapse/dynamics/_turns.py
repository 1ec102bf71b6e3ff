"""An explicit and an implicit method take turns: the one where something grows that the other does not see."""

import warnings

import numpy as np

from dyncollapse.dynamics._cvode import solve_by_cvode
from dyncollapse.dynamics._problem import Problem, Reached, Watch
from dyncollapse.dynamics._scipy import solve_by_scipy
from dyncollapse.dynamics._stiffness import Stiffness
from dyncollapse.dynamics._unseen import Lookout, Sight

EXPLICIT = "DOP853"
# Absolute tolerance of CVODE where a flow is stiff, over rtol and the largest weight, unless one was asked for.
LOOSE = 1e-2


def solve_in_turns(
    problem: Problem, watch: Watch, first: str, rtol: float, tolerances: np.ndarray, *, loose: bool
) -> Reached:
    """Integrate from tick 0 to the last.

    CVODE as the first method goes to the end unless something grows that it does not see. DOP853 then begins once more.
    DOP853 gives way to CVODE where the flow is stiff and nothing grows unseen.

    Args:
        problem: The flow, by the first method's clock; its field has `linearise`.
        watch: Called after every step.
        first: CVODE or DOP853.
        rtol: Relative tolerance.
        tolerances: Absolute tolerance of every entry.
        loose: Whether CVODE may have larger ones when it goes on for DOP853 that was first.

    Returns:
        How it ended.

    Raises:
        NoStep: Where the flow leaves the range of floating point.
        TooManyEvaluations: When the watch's allowance is used up.
    """
    explicit, implicit = (
        Problem(problem.equation, problem.vector, problem.times, logarithmic=clock) for clock in (False, True)
    )
    after = 0.0  # until when CVODE is known not to see something
    if first == "CVODE":
        back, lookout = watch.mark(), Lookout(Sight(problem.field, rtol, tolerances), watch)
        reached = solve_by_cvode(implicit, watch, rtol, tolerances, lookout=lookout)
        if not reached.left:
            _tell(lookout, watch)
            return reached
        after = _time(watch)
        back()
        watch.go_on(explicit, method=EXPLICIT)
    sight = Sight(problem.field, rtol, tolerances, LOOSE if loose and first != "CVODE" else 0.0)
    while True:
        stiffness = Stiffness(explicit, sight, after)
        reached = solve_by_scipy(explicit, watch, EXPLICIT, rtol, tolerances, stiffness)
        if not reached.left:
            return _with_products(reached, watch)
        assert watch.last is not None
        back, lookout = watch.mark(), Lookout(sight, watch)
        watch.go_on(implicit, stiff_from=_time(watch), stiff_method="CVODE")
        reached = solve_by_cvode(implicit, watch, rtol, sight.tolerances(watch.last[1]), stiffness.expected, lookout)
        if not reached.left:
            _tell(lookout, watch)
            return reached
        if not lookout.left:  # CVODE took longer
            watch.go_on(explicit, stiff_until=_time(watch))
            return _with_products(solve_by_scipy(explicit, watch, EXPLICIT, rtol, tolerances), watch)
        after = _time(watch)
        back()
        watch.go_on(explicit)


def _time(watch: Watch) -> float:
    assert watch.last is not None
    return float(watch.last[0])


def _with_products(reached: Reached, watch: Watch) -> Reached:
    """Add the Jacobian products to the counts, if any were taken by CVODE."""
    return reached._replace(counts=reached.counts | ({"jacobian_products": watch.products} if watch.products else {}))


def _tell(lookout: Lookout, watch: Watch) -> None:
    """Warn of a flow that may have stayed at a saddle, and record it."""
    if lookout.unfollowed is None:
        return
    t, growth = lookout.unfollowed
    watch.switched |= {"unseen_from": t}
    evaluations = growth.evaluations(t, watch.end)
    warnings.warn(
        f"from t = {t:.6g} on a direction grows at a rate of {growth.rate:.3g} from below the tolerance. CVODE may "
        "have stepped over it, and the flow may have stayed at a saddle. "
        f"{EXPLICIT} would follow it with some {evaluations:.1g} evaluations; {watch.most_evaluations} are allowed. "
        "Start from layers of one size, ask for a smaller rtol, or raise max_evaluations",
        stacklevel=2,
    )
