"""The command that runs the points of a sweep."""

import math
from typing import Any

from dyncollapse.commands.options import SINGLE
from dyncollapse.runtime.command_line import command_line
from dyncollapse.simulation.command import necessary
from dyncollapse.sweeps.grid import expand_grid
from dyncollapse.sweeps.sweep import Sweep

MOST_CHECKED = 5000  # points: to resolve their settings again takes a third of a second


def sweep_command(sweep: Sweep) -> str:
    """The command that runs exactly the points of a sweep; empty if no single one does, or if they are too many."""
    points, axes = list(sweep.points.values()), sweep.axes
    if len(points) > MOST_CHECKED or math.prod(map(len, axes.values())) != len(points) or set(axes) & set(SINGLE):
        return ""
    settings: dict[str, Any] = {name: value for name, value in necessary(points[0]).items() if name not in axes}
    try:
        again = set(expand_grid(settings | axes))
    except ValueError:
        return ""
    if again != set(points):
        return ""
    return command_line("sweep", **settings, **{name: tuple(values) for name, values in axes.items()}, out=sweep.folder)
