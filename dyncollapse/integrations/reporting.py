"""A report as scalars and as a picture, in the forms that loggers take."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dyncollapse.diagnostics.exports import draw
from dyncollapse.diagnostics.report import EmbeddingReport
from dyncollapse.diagnostics.verdict import Fate

# Fates that other views decide.
BY_VIEWS = (Fate.DEAD, Fate.SUPPRESSED, Fate.WAITING)
# Measures of several views, which are left out where they have no value.
OF_VIEWS = ("signal_rank", "lidar")


def scalars(report: EmbeddingReport, prefix: str = "collapse/") -> dict[str, float]:
    """Return a report as one flat dictionary of numbers, which every logger takes.

    Reports of one kind have the same names: a measure that is not defined is NaN, which loggers show as a gap.

    Args:
        report: The report.
        prefix: Text in front of each name.

    Returns:
        `samples`, `collapsed`, each rank measure, `largest` and `threshold` (the largest eigenvalue, and the variance
        up to which a dimension counts as collapsed); with intervals, `NAME_low` and `NAME_high`; with views that were
        compared, also the number of `dead`, `suppressed` and `waiting` dimensions, `signal_rank` and, from three
        views on, `lidar`.

    Examples:
        >>> import torch
        >>> from dyncollapse import Monitor
        >>> monitor = Monitor()
        >>> monitor.update(torch.randn(200, 3, generator=torch.Generator().manual_seed(0)))
        >>> values = scalars(monitor.compute(intervals=False), prefix="z/")
        >>> values["z/collapsed"], round(values["z/rankme"])
        (0.0, 3)
    """
    values: dict[str, Any] = {"samples": report.samples, "collapsed": report.collapsed}
    values |= {name: value for name, value in report.measures.items() if name not in OF_VIEWS or value is not None}
    values |= {"largest": float(report.spectrum[0]), "threshold": report.verdict.threshold}
    for name, bar in report.intervals.items():
        if bar is not None:
            values |= {f"{name}_low": bar[0], f"{name}_high": bar[1]}
    if report.pairs is not None:
        values |= {fate.value: report.verdict.fates.count(fate) for fate in BY_VIEWS}
    return {f"{prefix}{name}": math.nan if value is None else float(value) for name, value in values.items()}


def picture(report: EmbeddingReport) -> NDArray[np.uint8]:
    """Return the picture of a report, its spectrum and rho if there are other views, as pixels.

    Args:
        report: The report.

    Returns:
        Red, green and blue (height, width, 3) from 0 to 255.

    Examples:
        >>> import torch
        >>> from dyncollapse import diagnose
        >>> pixels = picture(diagnose(torch.randn(50, 3)))
        >>> pixels.shape, pixels.dtype
        ((350, 500, 3), dtype('uint8'))
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(draw(report))
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
