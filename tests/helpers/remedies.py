"""Toy networks to find remedies for, and what these say."""

import re
from dataclasses import replace

import torch

from dyncollapse.simulation.build import build
from dyncollapse.simulation.outcome import Outcome
from dyncollapse.simulation.presets import resolve
from dyncollapse.simulation.remedies import remedies
from dyncollapse.simulation.run import run

NUMBER = r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)"
POPULATION = {"dim": 4, "runs": 2, "dynamics": ("population",)}


def aligned(scale: float = 0.1, **settings) -> Outcome:
    """A population flow whose layers are multiples of the identity: aligned and balanced."""
    configuration = resolve(POPULATION | {"runs": 1} | settings)
    simulation = build(configuration)
    size = scale ** (1 / configuration.depth)
    layer = size * torch.eye(configuration.dim, dtype=torch.float64)[None]
    return run(replace(simulation, weights=(layer,) * configuration.depth), lambda *_: None, lambda _: None)


def suggested(outcome: Outcome, word: str) -> tuple[str, str]:
    """The text of the remedy whose action has this word, and its effect."""
    (found,) = [one for one in remedies(outcome) if word in one.action]
    return found.action, found.effect


def number(text: str, before: str) -> float:
    """The number behind these words."""
    found = re.search(before + " " + NUMBER, text)
    assert found, text
    return float(found[1])


def fates(outcome: Outcome) -> list[str]:
    assert outcome.verdict is not None
    return [str(fate) for fate in outcome.verdict.fates]


def drawn(**settings) -> Outcome:
    """The population flow of one network with a Gaussian start."""
    configuration = resolve({"runs": 1, "dynamics": ("population",), "steps": 3000} | settings)
    return run(build(configuration), lambda *_: None, lambda _: None)


def living(outcome: Outcome) -> int:
    """How many dimensions a network has at its end."""
    return int((outcome.ends["population"].singular_value[0] > 1e-2).sum())
