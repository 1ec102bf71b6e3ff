"""Figs. 2, 7b, 9, 10 and 12 on natural images: SimCLR's projectors and DirectCLR on CIFAR-10, from kept records."""

from pathlib import Path

from figure import Result, claim, main

from dyncollapse.bridge import compare, draw_check, find_runs

KEPT = Path(__file__).parent.parent / "docs" / "data" / "cifar10"
EPOCHS = 5  # of the runs that are compared; there are three seeds of each row of Table 1
TABLE_1 = ("mlp", "linear", "none", "low-rank-diagonal")
LESS = 1.2  # factor between effective ranks that are called different


def draw(quick: bool) -> Result:
    """Draw spectra of embedding and representation under each projector, and top-1 of every row and seed."""
    del quick  # the records are small
    runs = [run for run in find_runs([KEPT]) if run.recipe.epochs == EPOCHS]
    claim(all(run.finished for run in runs), "every run has taken its last step")
    figure = draw_check(runs)
    rows = compare([run for run in runs if run.recipe.d0 is None])["rows"]
    by_head = {row["projector"]: row for row in reversed(rows)}
    claim(all(len(by_head[head]["seeds"]) >= 3 for head in TABLE_1), "each row of Table 1 has three seeds")
    rank = {head: by_head[head]["representation_effective_rank"] for head in TABLE_1}
    for head in ("mlp", "linear"):
        claim(
            rank["none"] > LESS * rank[head],
            f"the representation has the higher effective rank without a projector: {rank['none']:.3g} against "
            f"{rank[head]:.3g} with {head}",
        )
    direct = by_head["low-rank-diagonal"]
    claim(
        rank["low-rank-diagonal"] > direct["embedding_effective_rank"],
        "DirectCLR's representation holds more than the sub-vector that the loss sees",
    )
    first = runs[0].recipe
    measured = "; ".join(
        f"{row['row']}: {row['top1']:.1f}{'' if row['top1_spread'] is None else ' ± {:.1f}'.format(row['top1_spread'])} %, "
        f"rank {row['representation_effective_rank']:.3g}"
        for row in rows
    )
    table = [
        {
            "projector": run.recipe.head,
            "seed": run.recipe.seed,
            "top1": run.top1(),
            "top1_error": run.probe()["error"],
            "representation_effective_rank": run.measure("representation", "effective_rank"),
            "embedding_effective_rank": run.measure("embedding", "effective_rank"),
        }
        for run in runs
    ]
    return Result(
        figure,
        table,
        f"""A ResNet of 10 layers and half the widths ({first.arch}, representation of {by_head["none"]["representation_dim"]}) trained for {first.epochs} epochs by NT-Xent
(temperature {first.temperature}) on the 50 000 training images of CIFAR-10, batches of {first.batch_size}; three seeds of each row of Table 1, seed 0 of the others.
Spectra over 10 000 training images under the two views of the loss, in evaluation mode; linear probe by logistic regression on the
same images without augmentation, its decay chosen on a held-out fifth, top-1 on the 10 000 test images. Bands and dots are seeds. As
Fig. 2: covariance eigenvalues of SimCLR's embedding. As Fig. 7b and 9: of the representation. As Fig. 10: of DirectCLR's whole
representation and of the sub-vector that the loss sees. As Fig. 12: top-1 against d0, at the sizes that were trained.
Top-1 and effective rank of the representation: {measured}.
Asserted: the representation's effective rank without a projector is at least {LESS} times that with either trained projector, unlike in
the paper; DirectCLR's representation has a higher effective rank than its sub-vector; every run is finished.""",
    )


if __name__ == "__main__":
    main("fig09_natural_images", draw)
