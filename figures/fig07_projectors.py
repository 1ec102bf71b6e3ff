"""Figs. 2, 7b, 9 and 12 at small scale: SimCLR's projectors and DirectCLR on scikit-learn's digits."""

from pathlib import Path
from tempfile import TemporaryDirectory

from figure import Result, claim, main

from dyncollapse.bridge import check_recipes, draw_check, find_runs, run_check

SEED = 0


def draw(quick: bool) -> Result:
    """Draw spectra of embedding and representation under each projector, and top-1 against the sub-vector's size."""
    recipes = check_recipes(1, short=True, epochs=2 if quick else None)
    with TemporaryDirectory() as folder:
        failures = run_check(Path(folder), recipes, workers=1)
        claim(not failures, f"every run finishes, but {failures}")
        runs = {run.folder.name: run for run in find_runs([Path(folder)])}
        figure = draw_check(list(runs.values()))

    rows = [
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
    rank = {name: run.measure("representation", "effective_rank") for name, run in runs.items()}
    for name in ("mlp", "linear"):
        claim(
            rank["none-seed0"] > 1.5 * rank[f"{name}-seed0"],
            f"without a projector the representation has the higher effective rank here: {rank['none-seed0']:.3g} "
            f"against {rank[f'{name}-seed0']:.3g} with {name}",
        )
    claim(
        1.3 * rank["sweep-d0-4"] < rank["sweep-d0-64"],
        f"the representation's effective rank grows with d0: {rank['sweep-d0-4']:.3g}, {rank['sweep-d0-64']:.3g}",
    )
    for name in ("sweep-d0-4", "low-rank-diagonal-seed0"):
        claim(
            rank[name] > runs[name].measure("embedding", "effective_rank"),
            f"{name}: the representation holds more than the sub-vector that the loss sees",
        )
    recipe = next(iter(recipes.values()))
    measured = "; ".join(f"{name}: {rank[name]:.3g}, {run.top1():.1f} %" for name, run in runs.items())
    return Result(
        figure,
        rows,
        f"""A narrow ResNet of 10 layers (representation of 128) trained for {recipe.epochs} epochs by NT-Xent (temperature
{recipe.temperature}) on the first 1297 of scikit-learn's digits, batches of {recipe.batch_size}, seed {SEED}; spectra over these images in
evaluation mode; linear probe by logistic regression, top-1 on the last 500 (bars: its standard error).
As Fig. 2: covariance eigenvalues of SimCLR's embedding. As Fig. 7b: of the representation with a nonlinear projector and
without one. As Fig. 9: of the representation under DirectCLR and SimCLR's projectors. As Fig. 12: top-1 against d0.
Unlike in the paper, the representation collapses more with a projector than without one at this scale, and its probe is worse.
Effective rank of the representation, top-1: {measured}.
Asserted: the representation's effective rank without a projector at least 1.5 times that with either trained projector;
that it grows with d0, by 1.3 at least from 4 to 64; and that under DirectCLR it exceeds that of the sub-vector.""",
    )


if __name__ == "__main__":
    main("fig07_projectors", draw)
