"""Which measures of a run go with its top-1: rank correlations over runs and over rows."""

import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypedDict

import numpy as np
from scipy.stats import norm, spearmanr

from dyncollapse.bridge.evaluation.paper_rows import table
from dyncollapse.bridge.spaces import SpaceName
from dyncollapse.bridge.training.run_folder import Run

FEWEST = 5  # runs: with four, not even a perfect order has p < 5 %
LEVEL = 0.95
NEAR = 0.9  # of 1: directions whose rho is at least this are near collapse or beyond

Get = Callable[[Run], float | None]


class Association(TypedDict):
    """Spearman's rank correlation of top-1 with a measure, over runs and over the means of rows.

    `interval` has 95 % for independent runs. Runs of one row are alike, so that it is too narrow; `rows_interval` is
    not. Values are None where the measure does not vary, or where too few runs or rows have it.
    """

    measure: str
    runs: int
    spearman: float | None
    interval: list[float] | None
    rows: int
    rows_spearman: float | None
    rows_interval: list[float] | None


def associations(runs: Sequence[Run]) -> list[Association]:
    """Correlate the ranks of top-1 and of each measure of the diagnosis, over at least five runs on the same images.

    A correlation is no cause: rows differ in more than one measure.

    Args:
        runs: Runs of any projectors, seeds and settings. Of several sets of images, the one with most probed runs
            counts.

    Returns:
        A record for each measure; none for fewer than five runs with a probe.

    References:
        Spearman (1904), American Journal of Psychology 15, 72; Bonett and Wright (2000), Psychometrika 65, 23.

    Examples:
        >>> associations([])
        []
    """
    probed = [run for run in runs if run.top1() is not None]
    if not probed:
        return []
    ((usual, _),) = Counter(run.facts["data"] for run in probed).most_common(1)
    probed = [run for run in probed if run.facts["data"] == usual]
    if len(probed) < FEWEST:
        return []
    rows = [row.runs for row in table(probed)]
    found = []
    for name, get in MEASURES.items():
        pairs = [pair for run in probed if (pair := _pair([run], get)) is not None]
        means = [pair for group in rows if (pair := _pair(group, get)) is not None]
        over_runs, over_rows = rank_correlation(pairs), rank_correlation(means)
        found.append(
            Association(
                measure=name,
                runs=len(pairs),
                spearman=over_runs[0],
                interval=over_runs[1],
                rows=len(means),
                rows_spearman=over_rows[0],
                rows_interval=over_rows[1],
            )
        )
    return found


def _pair(runs: Sequence[Run], get: Get) -> tuple[float, float] | None:
    """Mean top-1 and mean measure of the runs that have both; None if none has."""
    pairs = [(top1, value) for run in runs if (top1 := run.top1()) is not None and (value := get(run)) is not None]
    if not pairs:
        return None
    return statistics.fmean(top1 for top1, _ in pairs), statistics.fmean(value for _, value in pairs)


def rank_correlation(pairs: Sequence[tuple[float, float]]) -> tuple[float | None, list[float] | None]:
    """Spearman's rank correlation with Fisher's interval.

    Args:
        pairs: Two numbers of each run.

    Returns:
        The correlation, None if there are fewer than three pairs or a number does not vary; and its 95 % interval, None
        for fewer than four pairs. Where all ranks agree, its inner end is that of ranks of which two neighbours are
        swapped.

    Examples:
        >>> rank_correlation([(1, 10), (2, 20), (3, 30), (4, 50), (5, 40)])[0]
        0.9
    """
    n = len(pairs)
    if n < 3:
        return None, None
    x, y = np.array(pairs).T
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return None, None
    r = round(float(spearmanr(x, y).statistic), 12)  # 1 for equal ranks, without rounding
    if n < 4:
        return r, None
    swapped = 1 - 12 / (n * (n * n - 1))
    inner = min(max(r, -swapped), swapped)
    half = float(norm.ppf((1 + LEVEL) / 2)) * math.sqrt((1 + inner**2 / 2) / (n - 3))
    low, high = (math.tanh(math.atanh(inner) + sign * half) for sign in (-1, 1))
    return r, [-1.0 if r < -swapped else low, 1.0 if r > swapped else high]


def _directions(run: Run, least: float) -> float | None:
    return float(sum(rho >= least for rho in run.ratios)) if run.ratios else None


def _largest_over_median(run: Run) -> float | None:
    ratios = run.ratios
    middle = statistics.median(ratios) if ratios else 0.0
    return max(ratios) / middle if middle > 0 else None


def _collapsed(run: Run, space: SpaceName) -> float | None:
    found = run.diagnosis["spaces"].get(space) if run.diagnosis else None
    return None if found is None else float(found["verdict"]["collapsed"])


def _last_alignment(run: Run) -> float | None:
    layers = run.diagnosis.get("layers") if run.diagnosis else None
    return layers[-1]["alignment"] if layers else None


def _final_loss(run: Run) -> float | None:
    return run.log[-1]["loss"] if run.finished else None


MEASURES: dict[str, Get] = {
    "effective rank r": lambda run: run.measure("representation", "effective_rank"),
    "RankMe r": lambda run: run.measure("representation", "rankme"),
    "participation ratio r": lambda run: run.measure("representation", "participation_ratio"),
    "collapsed dimensions r": partial(_collapsed, space="representation"),
    "effective rank z": lambda run: run.measure("embedding", "effective_rank"),
    "RankMe z": lambda run: run.measure("embedding", "rankme"),
    "participation ratio z": lambda run: run.measure("embedding", "participation_ratio"),
    "collapsed dimensions z": partial(_collapsed, space="embedding"),
    "directions rho >= 1, r": partial(_directions, least=1.0),
    f"directions rho >= {NEAR:g}, r": partial(_directions, least=NEAR),
    "largest/median rho, r": _largest_over_median,
    "alignment of last layers": _last_alignment,
    "final loss": _final_loss,
}
