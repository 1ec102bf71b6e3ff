"""Flows and SGD of a setting of the page, which end early when the page has moved on."""

import time as clock
from collections.abc import Callable
from dataclasses import replace

from dyncollapse.dynamics.trajectory import Trajectory
from dyncollapse.explore.ended import ENDED
from dyncollapse.model.choices import SELF_DISTILLED, Dynamics
from dyncollapse.simulation.build import build
from dyncollapse.simulation.configuration import Configuration
from dyncollapse.simulation.run import run
from dyncollapse.sweeps.estimate import expected_seconds
from dyncollapse.theory.limits import POPULATION_LOSSES

# Seconds of processor time within which a flow is drawn without being asked for.
AT_ONCE = 1.0
# Seconds between two reports of progress on the page.
REPORT_EVERY = 0.25


class Stopped(Exception):
    """The page has moved on, or the server ends."""


class TooLong(Exception):
    """A flow takes longer than it may without being asked for; `seconds` is an estimate of the whole."""

    def __init__(self, seconds: float) -> None:
        """Keep the estimate."""
        super().__init__(f"about {seconds:.0f} s")
        self.seconds = seconds


def flow_of(loss: str) -> Dynamics:
    """The flow that the page draws: "population" where the loss has that limit, else "flow", on fixed batches.

    Args:
        loss: The loss by name.

    Returns:
        The name of the dynamics.

    Examples:
        >>> flow_of("infonce"), flow_of("ntxent")
        ('population', 'flow')
    """
    return "population" if loss in (*POPULATION_LOSSES, *SELF_DISTILLED) else "flow"


def record(
    configuration: Configuration,
    name: Dynamics,
    *,
    stopped: Callable[[], bool] = lambda: False,
    report: Callable[[float], object] = float,
    within: float | None = None,
) -> Trajectory:
    """Run one dynamics of a configuration, as `dyncollapse simulate` does.

    Args:
        configuration: The settings.
        name: "sgd", "flow" or "population".
        stopped: Whether to give up, asked after every step.
        report: Called every REPORT_EVERY seconds with the share that is done.
        within: Seconds of processor time that it may take; None for as long as it needs.

    Returns:
        The record.

    Raises:
        Stopped: Where it was given up.
        TooLong: Where it would take longer than `within`.
        TrainingFailed: Where SGD diverges or a solver gives up.
    """
    alone = replace(configuration, dynamics=(name,))
    started, reported = clock.thread_time(), clock.monotonic()

    def advance(_name: str, done: float, total: float) -> None:
        nonlocal reported
        if ENDED.is_set() or stopped():
            raise Stopped
        if within is not None and clock.thread_time() - started > within:
            raise TooLong(0.0)
        now = clock.monotonic()
        if now - reported > REPORT_EVERY:
            reported = now
            report(done / total)

    try:
        return run(build(alone), advance, lambda _outcome: None, threads=1).trajectories[name]
    except TooLong:
        raise TooLong(max(expected_seconds(alone), within or 0.0)) from None
