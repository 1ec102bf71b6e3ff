"""Figs. 2, 7b, 9 and 12 at small scale: SimCLR's projectors and DirectCLR on scikit-learn's digits."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from figure import Result, Whole, claim, drawn_with, like, number, record

from dyncollapse.bridge import Run, check_recipes, draw_check, find_runs, run_check

MORE, GROWS = 1.5, 1.3  # factors between effective ranks that are asserted
FEW, MANY = "sweep-d0-4", "sweep-d0-64"


@record
class Options:
    """Parameters of the small-scale figures."""

    epochs: Whole = number(15, "Epochs of each run.", low=1, high=1000, unit="epochs")
    probed: Whole = number(
        2000, "Most training images that are diagnosed and probed.", low=100, high=2000, unit="images"
    )
    seed: Whole = like("seed", 0)


@drawn_with(Options, epochs=2, probed=200)
def draw(options: Options) -> Result:
    """Draw spectra of embedding and representation under each projector, and top-1 against the sub-vector's size."""
    recipes = check_recipes(1, short=True, epochs=options.epochs)
    recipes = {name: replace(recipe, seed=options.seed) for name, recipe in recipes.items()}
    with TemporaryDirectory() as folder:
        failures = run_check(Path(folder), recipes, workers=1, most=options.probed)
        claim(not failures, f"every run finishes, but {failures}")
        runs = {run.folder.name: run for run in find_runs([Path(folder)])}
        figure = draw_check(list(runs.values()))
    rank = {name: run.measure("representation", "effective_rank") for name, run in runs.items()}
    check(runs, rank)
    recipe, facts = next(iter(recipes.values())), next(iter(runs.values())).facts
    seen = "these images"
    if options.probed < facts["images"]:
        seen = f"{options.probed} of these images, from which the probe learns, too,"
    measured = "; ".join(f"{name}: {rank[name]:.3g}, {run.top1():.1f} %" for name, run in runs.items())
    collapsed = rank["mlp-seed0"] < rank["none-seed0"]
    worse = runs["mlp-seed0"].top1() < runs["none-seed0"].top1()
    as_paper = "As in the paper" if not (collapsed or worse) else "Unlike in the paper"
    return Result(
        figure,
        rows(runs),
        f"""{recipe.arch} (representation of {facts["representation_dim"]}) trained for {recipe.epochs} epochs by NT-Xent (temperature
{recipe.temperature}) on the first {facts["images"]} of scikit-learn's digits, batches of {recipe.batch_size}, seed {recipe.seed}; spectra over {seen} in
evaluation mode; linear probe by logistic regression, top-1 on the others (bars: its standard error).
(a) as Fig. 2: covariance eigenvalues of SimCLR's embedding. (b) as Fig. 7b: of the representation with a nonlinear projector and
without one. (c) as Fig. 9: of the representation under DirectCLR and SimCLR's projectors. (d) as Fig. 10: of DirectCLR's whole
representation and of the sub-vector that the loss sees. (e) as Fig. 12: top-1 against d0. (f) top-1 of every row, with the paper's on ImageNet.
{as_paper}, the effective rank of the representation is {"lower" if collapsed else "higher"} with the nonlinear projector than without one, and its probe is {"worse" if worse else "not worse"}.
Effective rank of the representation, top-1: {measured}.""",
        f"the representation's effective rank without a projector is at least {MORE} times that with either trained projector; "
        f"it grows with d0, by {GROWS} at least from 4 to 64; and under DirectCLR it exceeds that of the sub-vector.",
    )


def check(runs: dict[str, Run], rank: dict[str, float]) -> None:
    """Claim what the figure asserts of effective ranks."""
    for name in ("mlp", "linear"):
        claim(
            rank["none-seed0"] > MORE * rank[f"{name}-seed0"],
            f"without a projector the representation has the higher effective rank here: {rank['none-seed0']:.3g} "
            f"against {rank[f'{name}-seed0']:.3g} with {name}",
        )
    claim(
        GROWS * rank[FEW] < rank[MANY],
        f"the representation's effective rank grows with d0: {rank[FEW]:.3g}, {rank[MANY]:.3g}",
    )
    for name in (FEW, "low-rank-diagonal-seed0"):
        claim(
            rank[name] > runs[name].measure("embedding", "effective_rank"),
            f"{name}: the representation holds more than the sub-vector that the loss sees",
        )


def rows(runs: dict[str, Run]) -> list[dict[str, object]]:
    """A row for each run."""
    return [
        {
            "projector": run.recipe.head,
            "d0": run.recipe.d0 or "",
            "outputs": run.facts["embedding_dim"],
            "top1": run.top1(),
            "top1_error": run.probe()["error"],
            "representation_effective_rank": run.measure("representation", "effective_rank"),
            "embedding_effective_rank": run.measure("embedding", "effective_rank"),
        }
        for run in runs.values()
    ]


if __name__ == "__main__":
    draw.main()
