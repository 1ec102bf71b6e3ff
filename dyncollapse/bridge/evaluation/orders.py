"""Which orders of the paper's rows hold in these runs: tests on the differences of top-1 over seeds."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Literal, NamedTuple, TypedDict

import numpy as np
from scipy.optimize import brentq
from scipy.stats import nct, t, ttest_ind, ttest_rel

from dyncollapse.bridge.evaluation.paper_rows import DIRECT, SUBVECTOR, TableRow, shared_settings, table
from dyncollapse.bridge.training.run_folder import Run
from dyncollapse.bridge.training.schemas import Probe
from dyncollapse.runtime.settings import option

LEVEL, POWER = 0.95, 0.8
ROUNDING = 1e-9  # percent: differences of accuracies that agree to within this are the same
# Percentage points: rows that are closer in the paper, which has one seed of each, contradict nothing when they swap.
CLOSE = 1.0

Verdict = Literal["holds", "reversed", "undecided"]
TestName = Literal["paired t", "Welch t", "none"]


class Order(TypedDict):
    """A pair of rows: their order in the paper, and what these runs say of it; top-1 in percent.

    `difference` is the better row's top-1 in the paper minus the worse one's, here; `paper` is the same in the paper.
    It is the mean over shared seeds, but over all seeds if the test is Welch's or if no seed is shared.
    `interval` has 95 % for this pair alone, and `p` is for this pair alone; `p_holm` holds for all pairs together.
    `detectable` is the smallest difference that as many seeds with this spread show with a power of 80 %. Without a
    test these are None, and `reason` says why. `probe_error` is the standard error of the difference from the number of
    test images alone, as if each row had test images of its own.
    """

    better: str
    worse: str
    setting: str
    paper: float
    difference: float
    interval: list[float] | None
    p: float | None
    p_holm: float | None
    detectable: float | None
    probe_error: float | None
    seeds: list[int]
    shared: int
    test: TestName
    verdict: Verdict
    reason: str


@dataclass(frozen=True)
class Measured:
    """The top-1 of a row's runs.

    Attributes:
        name: The row's name.
        paper: Its top-1 in the paper, in percent.
        top1: Its top-1 here by seed, in percent.
        error: The probe's standard error from the number of test images, in percent; None if unknown.
        probes: The kinds of probe by which it was measured, in words.
    """

    name: str
    paper: float
    top1: Mapping[int, float]
    error: float | None = None
    probes: frozenset[str] = frozenset()


def orders(runs: Sequence[Run]) -> list[Order]:
    """Test every order of two rows that the paper gives, among runs with the same settings.

    Rows that were probed in different ways, or on different numbers of images, are not compared. The others are, by
    Student's t test on the differences of runs with the same seed, if at least two seeds are shared, and by Welch's
    test otherwise. If a row has one seed, nothing is tested, and the difference is that of this seed where both rows
    have it. Runs with the same seed and settings see the same images in the same order, crops and colours, and
    their backbones start with the same weights. A paired test needs none of that: it holds whatever the runs of a seed
    share.

    The test images are the same for all runs, so that results hold for these images.

    Args:
        runs: Runs of any projectors, seeds and settings. Several of one seed count as their mean.

    Returns:
        A record for each pair of rows that were probed, in the paper's order.

    References:
        Jing et al. (2022), arXiv:2110.09348, Tables 1 and 2, Appendix F.

    Examples:
        >>> from pathlib import Path
        >>> from dyncollapse.bridge import resolve
        >>> def run(head, seed, top1):
        ...     facts = {"data": "digits", "images": 1297, "representation_dim": 128, "embedding_dim": 64, "steps": 9}
        ...     probe = {"method": "logistic", "dimensions": 128, "top1": top1, "error": 1.1, "step": 9}
        ...     recipe = resolve({"data": "digits", "projector": head, "seed": seed})
        ...     return Run(Path(f"{head}-{seed}"), recipe, facts, [probe], None, [{"step": 9, "loss": 4.1}])
        >>> top1 = {"mlp": (90.0, 91.0, 92.5), "none": (94.0, 95.5, 96.0)}
        >>> order, = orders([run(head, seed, one) for head in top1 for seed, one in enumerate(top1[head])])
        >>> order["better"], order["worse"], order["paper"], order["verdict"]
        ('nonlinear, 2 layers', 'none', 15.0, 'reversed')
        >>> [round(end, 1) for end in order["interval"]]
        [-5.2, -2.8]
    """
    found = [compare_pair(*pair, setting) for setting, rows in _by_setting(runs) for pair in combinations(rows, 2)]
    tested = [order for order in found if order["p"] is not None]
    for order, p in zip(tested, holm([order["p"] or 0.0 for order in tested]), strict=True):
        order["p_holm"] = p
    return found


def _by_setting(runs: Sequence[Run]) -> list[tuple[str, list[Measured]]]:
    """The rows of each combination of settings, and what distinguishes it from the first; most runs first."""
    groups: dict[tuple[tuple[str, str], ...], dict[str, TableRow]] = {}
    for row in table(runs):
        rows = groups.setdefault(shared_settings(row.runs[0]), {})
        # The matched row is not in the paper. Of several sizes of a projector, the one with most runs comes first.
        if not row.matched:
            rows.setdefault(row.row.head, row)
    ordered = sorted(groups.items(), key=lambda group: -sum(len(row.runs) for row in group[1].values()))
    named = []
    for key, rows in ordered:
        unlike = [
            f"{option(name)[2:]} {value}"
            for (name, value), usual in zip(key, ordered[0][0], strict=True)
            if (name, value) != usual
        ]
        named.append((", ".join(unlike), _measured(rows.values())))
    return named


def _measured(rows: Iterable[TableRow]) -> list[Measured]:
    """The rows of the paper that were probed, DirectCLR's sub-vector among them, best in the paper first."""
    measured = []
    for row in rows:
        measured.append(_top1(row, row.row.name, row.row.paper, None))
        outputs = row.runs[0].facts["embedding_dim"]
        if row.row.head == DIRECT and outputs < row.runs[0].facts["representation_dim"]:
            measured.append(_top1(row, SUBVECTOR.name, SUBVECTOR.paper, outputs))
    return sorted((one for one in measured if one.top1), key=lambda one: -one.paper)


def _top1(row: TableRow, name: str, paper: float, dimensions: int | None) -> Measured:
    probed = [(run.recipe.seed, probe) for run in row.runs if (probe := run.probe(dimensions)) is not None]
    by_seed: dict[int, list[float]] = {}
    for seed, probe in probed:
        by_seed.setdefault(seed, []).append(probe["top1"])
    top1 = {seed: statistics.fmean(values) for seed, values in by_seed.items()}
    error = statistics.fmean(probe["error"] for _, probe in probed) if probed else None
    return Measured(name, paper, top1, error, frozenset(probe_in_words(probe) for _, probe in probed))


def probe_in_words(probe: Probe) -> str:
    """The kind of a probe: its classifier and the number of its training images, where this is known."""
    images = probe.get("train")
    return probe["method"] + ("" if images is None else f" on {images} images")


def compare_pair(better: Measured, worse: Measured, setting: str = "") -> Order:
    """Test whether the row that is better in the paper is better here.

    Args:
        better: The row with the higher top-1 in the paper.
        worse: The other row.
        setting: What distinguishes the settings of both from those of most runs.

    Returns:
        The record, without `p_holm`.
    """
    shared = sorted(better.top1.keys() & worse.top1.keys())
    # Welch's test needs two seeds of each row. Without it the seeds that both share are the fairest comparison.
    paired = len(shared) > 1 or (len(shared) == 1 and min(len(better.top1), len(worse.top1)) == 1)
    a, b = (np.array([one.top1[seed] for seed in (shared if paired else sorted(one.top1))]) for one in (better, worse))
    probes = sorted(better.probes | worse.probes)
    if len(probes) > 1:
        tested = _Tested("none", reason=f"the rows were probed in different ways: {', '.join(probes)}")
    else:
        tested = _t_test(a, b, paired=paired)
    known = better.error is not None and worse.error is not None
    return Order(
        better=better.name,
        worse=worse.name,
        setting=setting,
        paper=round(better.paper - worse.paper, 10),
        difference=float(a.mean() - b.mean()),
        interval=tested.interval,
        p=tested.p,
        p_holm=None,
        detectable=tested.detectable,
        probe_error=math.hypot(better.error or 0.0, worse.error or 0.0) if known else None,
        seeds=[len(better.top1), len(worse.top1)],
        shared=len(shared),
        test=tested.name,
        verdict=_verdict(tested.interval),
        reason=tested.reason,
    )


class _Tested(NamedTuple):
    name: TestName
    interval: list[float] | None = None
    p: float | None = None
    detectable: float | None = None
    reason: str = ""


def _t_test(a: np.ndarray, b: np.ndarray, *, paired: bool) -> _Tested:
    """A t test on the difference of the means of two samples, paired or of unequal variances."""
    if min(len(a), len(b)) < 2:
        return _Tested("none", reason="one seed: the spread over seeds is unknown")
    if max(map(np.ptp, [a - b] if paired else [a, b])) < ROUNDING:
        # Accuracies are multiples of one image: no spread among a few seeds does not mean that there is none.
        return _Tested("none", reason="the seeds show no spread by which to judge")
    result = ttest_rel(a, b) if paired else ttest_ind(a, b, equal_var=False)
    low, high = (float(end) for end in result.confidence_interval(LEVEL))
    df = float(result.df)
    error = (high - low) / 2 / float(t.ppf((1 + LEVEL) / 2, df))
    name: TestName = "paired t" if paired else "Welch t"
    return _Tested(name, [low, high], float(result.pvalue), error * detectable_shift(df))


def _verdict(interval: list[float] | None) -> Verdict:
    if interval is None or interval[0] <= 0 <= interval[1]:
        return "undecided"
    return "holds" if interval[0] > 0 else "reversed"


@cache
def detectable_shift(df: float) -> float:
    """The smallest true difference, in standard errors, of which a two-sided t test shows the sign in 80 % of cases.

    Args:
        df: Degrees of freedom, at least 1.

    Returns:
        The noncentrality of Student's t at which the test at 5 % has this power.

    Examples:
        >>> [round(detectable_shift(df), 2) for df in (1, 2, 9, 10**6)]
        [16.33, 5.65, 3.15, 2.8]
    """
    beyond = float(t.ppf((1 + LEVEL) / 2, df))

    def lacking(shift: float) -> float:
        return float(nct.sf(beyond, df, shift)) - POWER

    return float(brentq(lacking, 0.0, 2 * beyond + 2))


def holm(p: Sequence[float]) -> list[float]:
    """Adjust p values so that each bounds the chance of any false rejection among all of them.

    Args:
        p: The p values.

    Returns:
        Holm's adjusted p values, in the same order.

    References:
        Holm (1979), Scandinavian Journal of Statistics 6, 65.

    Examples:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(np.array(p)[order] * np.arange(len(p), 0, -1)), 1.0)
    return [float(value) for value in adjusted]


def contradictions(compared: Sequence[Order]) -> list[str]:
    """Sentences on the orders that are reversed here, of rows that are more than `CLOSE` apart in the paper.

    Args:
        compared: Records from `orders`.

    Returns:
        The sentences.
    """
    return [
        f"{order['worse']} beats {order['better']} by {-order['difference']:.1f} here"
        + (f" ({order['setting']})" if order["setting"] else "")
        + f"; in the paper it loses by {order['paper']:.1f}"
        for order in compared
        if order["verdict"] == "reversed" and order["paper"] > CLOSE
    ]
