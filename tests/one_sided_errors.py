"""How often one-sided views decide a cause that is open, and how often they find one that is clear.

`python tests/one_sided_errors.py` prints, for every size and tail, the share of draws in which any of q collapsed
dimensions is decided although rho is exactly 1 along all of them, or along the smaller half beside a larger half at
rho = 1/3; and the share of dimensions that are decided rightly at rho = 3 and at rho = 1/3. Seeded; a few minutes.
"""

import argparse
import itertools
import sys

import torch
from helpers.reference import normal, seeded

from dyncollapse import diagnose

TAILS = ("normal", "student", "one scale per sample")
DIMENSIONS, SAMPLES = (1, 4, 8, 16, 40), (150, 300, 1000, 4000)
ALIVE, ALIVE_RATIO, COLLAPSED_SCALE = 6, 0.01, 2e-3
RIGHT = {1 / 3: "waiting", 1.0: "unexplained", 3.0: "dead"}


def draw(seed, samples, ratios, tails, scales=None):
    """A clean view and an augmented one: six alive dimensions, and a collapsed one for every ratio."""
    g, d = seeded(seed), ALIVE + len(ratios)
    x, noise = normal(g, 2, samples, d)
    if tails == "student":
        x, noise = (rows / normal(g, 5, samples, d).square().mean(0).sqrt() for rows in (x, noise))
    elif tails == "one scale per sample":
        common = (0.7 * normal(g, samples, 1)).exp()
        x, noise = x * common, noise * common
    rho = torch.tensor([ALIVE_RATIO] * ALIVE + list(ratios), dtype=torch.float64)
    small = torch.tensor([1.0] * ALIVE + list(scales or [COLLAPSED_SCALE] * len(ratios)), dtype=torch.float64)
    return x * small, x * small + noise * small * (2 * rho).sqrt()


def fates(*drawn, **options):
    """Fates of the collapsed dimensions of one draw."""
    z, positives = draw(*drawn, **options)
    return diagnose(z, positives, views="one-sided").verdict.fates[ALIVE:]


def wrong(q, samples, tails, draws):
    """Share of draws in which a dimension at rho = 1 is decided."""
    return sum(set(fates(seed, samples, [1.0] * q, tails)) != {"unexplained"} for seed in range(draws)) / draws


def wrong_beside(q, samples, tails, draws):
    """The same of the smaller half of the dimensions, where the larger half waits."""
    large = q // 2
    ratios = [1 / 3] * large + [1.0] * (q - large)
    scales = [COLLAPSED_SCALE] * large + [COLLAPSED_SCALE / 30] * (q - large)
    found = [fates(seed, samples, ratios, tails, scales=scales)[large:] for seed in range(draws)]
    return sum(set(fate) != {"unexplained"} for fate in found) / draws


def power(q, samples, tails, draws, ratio):
    """Share of dimensions that are decided rightly."""
    return sum(fates(seed, samples, [ratio] * q, tails).count(RIGHT[ratio]) for seed in range(draws)) / (q * draws)


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=100, help="draws for each share of errors [100]")
    parser.add_argument("--tails", choices=TAILS, action="append", help="these tails only; repeatable")
    parser.add_argument("--samples", type=int, action="append", help="these sample sizes only; repeatable")
    given = parser.parse_args()
    draws, kinds, sizes = given.draws, given.tails or TAILS, given.samples or SAMPLES
    columns = ("tails", "n", "q", "decided at 1", "beside waiting", "right at 3", "right at 1/3")
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    sys.stdout.write("\n".join(lines) + "\n")
    for tails, samples, q in itertools.product(kinds, sizes, DIMENSIONS):
        errors = [share(q, samples, tails, draws) for share in (wrong, wrong_beside)]
        found = [power(q, samples, tails, max(1, draws // 5), ratio) for ratio in (3.0, 1 / 3)]
        shares = " | ".join(f"{share:.2f}" for share in errors + found)
        sys.stdout.write(f"| {tails} | {samples} | {q} | {shares} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
