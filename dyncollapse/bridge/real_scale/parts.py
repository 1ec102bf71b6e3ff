"""The parts of the real-scale check in the order in which they run, short ones first."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from dyncollapse.bridge.real_scale import cifar, covariances, embedding, ensembles, resumption, throughput
from dyncollapse.bridge.real_scale.findings import PartResult, Site
from dyncollapse.bridge.real_scale.subprocesses import Failure, run_in_subprocess


@dataclass(frozen=True)
class Part:
    """A part of the check.

    Attributes:
        number: Its number in the report.
        title: Its subject.
        measure: Does it.
        most: Time limit, in seconds.
    """

    number: int
    title: str
    measure: Callable[[Site], PartResult]
    most: float


PARTS = (
    Part(4, "toy ensembles, thousands of runs at once", ensembles.measure, 50),
    Part(3, "Sigma0 and Sigma1, blockwise", covariances.measure, 50),
    Part(5, "checkpoint, kill, resume", resumption.measure, 80),
    Part(1, "training steps, from device memory and from a folder", throughput.measure, 240),
    Part(2, "embeddings, spectra, diagnosis", embedding.measure, 120),
    Part(6, "Tables 1 and 2 on CIFAR-10", cifar.measure, float("inf")),
)


def measure_part(
    part: Part, site: Site, tell: Callable[[str], object], keep: Callable[[PartResult], object]
) -> PartResult | Failure[PartResult]:
    """Run a part in a process of its own, until `site.until`; `keep` gets its partial results."""
    return run_in_subprocess(partial(_measure, part.measure, site), site.until, tell, keep)


def _measure(
    measure: Callable[[Site], PartResult],
    site: Site,
    tell: Callable[[str], object],
    save: Callable[[PartResult], object],
) -> PartResult:
    return measure(replace(site, tell=tell, save=save))
