"""Tries of every class, counted; what violates, each fault once, in its smallest form."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from dyncollapse.commands.main import main
from fuzz import files, folders, options
from fuzz.runner import SECONDS, Outcome, Runner, Try
from fuzz.world import build

# Of a hundred tries, how many are of each class.
SHARES = {
    "options": 30,
    "arrays": 14,
    "data": 6,
    "checkpoints": 14,
    "run folders": 12,
    "sweep folders": 8,
    "spaces": 5,
    "settings": 4,
    "image folders": 13,
    "shards": 4,
}


@dataclass
class Count:
    """Tries of one class: how many, how they ended, and each fault with the first try that showed it."""

    tries: int = 0
    violated: int = 0
    slow: int = 0
    seconds: float = 0.0
    longest: float = 0.0
    codes: Counter[int] = field(default_factory=Counter)
    faults: dict[str, Try] = field(default_factory=dict)

    def add(self, tried: Try, outcome: Outcome) -> None:
        """Count a try."""
        self.tries += 1
        self.violated += bool(outcome.violations)
        self.slow += outcome.slow
        self.seconds += outcome.seconds
        self.longest = max(self.longest, outcome.seconds)
        self.codes[outcome.code] += 1
        if outcome.violations:
            self.faults.setdefault(outcome.signature, tried)


def strategies(runner: Runner) -> dict[str, st.SearchStrategy[Try]]:
    """The tries of each class."""
    points = tuple(sorted(path.name for path in (runner.world / "grid" / "points").iterdir()))
    return {
        "options": options.option_tries(main),
        "arrays": files.array_tries(),
        "data": files.data_tries(),
        "checkpoints": files.checkpoint_tries(),
        "run folders": folders.run_tries(),
        "sweep folders": folders.sweep_tries(points),
        "spaces": folders.space_tries(),
        "settings": folders.settings_tries(),
        "image folders": files.image_tries(),
        "shards": files.shard_tries(),
    }


def campaign(
    runner: Runner,
    tries: int,
    number: int = 0,
    kinds: tuple[str, ...] = tuple(SHARES),
    tell: Callable[[str], object] = lambda _text: None,
) -> dict[str, Count]:
    """Make so many tries, shared among the classes, from a seed; a count for each class."""
    valid = build(runner)
    made, found = strategies(runner), {}
    for kind in kinds:
        share = max(1, round(tries * SHARES[kind] / sum(SHARES[k] for k in kinds)))
        found[kind] = _tried(runner, kind, made[kind], share, number, max(valid.values()), tell)
    return found


def _tried(
    runner: Runner, kind: str, strategy: Any, share: int, number: int, valid: float, tell: Callable[[str], object]
) -> Count:
    count, started = Count(), time.monotonic()

    @seed(number)
    @settings(
        max_examples=share,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def attempt(tried: Try) -> None:
        outcome = runner.run(tried, SECONDS + valid)
        fresh = outcome.violations and outcome.signature not in count.faults
        count.add(tried, outcome)
        if fresh:
            tell(f"{kind}: {outcome.signature}\n  {tried.as_json()}")

    attempt()
    tell(f"{kind}: {count.tries} tries, {count.violated} violated, {time.monotonic() - started:.0f} s")
    return count


def smaller(tried: Try) -> Iterator[Try]:
    """Tries with one thing less."""
    for k in range(len(tried.steps)):
        yield replace(tried, steps=tried.steps[:k] + tried.steps[k + 1 :])
    words = tried.arguments
    first = 2 if words[0] == "bridge" else 1
    for length in (2, 1):
        for k in range(len(words) - length, first - 1, -1):
            yield replace(tried, arguments=words[:k] + words[k + length :])


def minimised(runner: Runner, tried: Try, signature: str, bound: float) -> Try:
    """The same fault by fewer steps and words."""
    shrinking = True
    while shrinking:
        shrinking = False
        for candidate in smaller(tried):
            if runner.run(candidate, bound).signature == signature:
                tried, shrinking = candidate, True
                break
    return tried
