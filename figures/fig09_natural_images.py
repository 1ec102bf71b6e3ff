"""Figs. 2, 7b, 9, 10 and 12 on natural images: SimCLR's projectors and DirectCLR on CIFAR-10, from kept records."""

import math
from collections import Counter
from pathlib import Path

from figure import Number, Result, Whole, claim, drawn_with, number, record

from dyncollapse import SettingError
from dyncollapse.bridge import Run, compare, draw_check, find_runs

KEPT = Path(__file__).parent.parent / "docs" / "data" / "cifar10"
TABLE_1 = ("mlp", "linear", "none", "low-rank-diagonal")
SHARED = ("arch", "stem", "images", "augment", "crop_scale", "colour", "temperature", "batch_size", "lr")
PAPERS = 0.1  # temperature
LESS = 1.2  # factor between effective ranks that are called different
CLAIMED = {
    True: f"the representation's effective rank without a projector is at least {LESS} times that with either trained "
    "projector, unlike in the paper",
    False: f"the representation's effective rank with either trained projector is at least {LESS} times that without, and "
    "its top-1 is higher, as in the paper",
}


@record
class Options:
    """Which kept runs are drawn."""

    folder: Path = number(KEPT, "Folder with runs, as `bridge check` keeps them.", unset="docs/data/cifar10")
    epochs: Whole = number(5, "Epochs of the runs that are compared.", low=1, high=10**6, unit="epochs")
    temperature: Number = number(PAPERS, "Temperature of their loss; kept are 0.1 and 0.5.", low=1e-3, high=1e3)


@drawn_with(Options)
def draw(options: Options) -> Result:
    """Draw spectra of embedding and representation under each projector, and top-1 of every row and seed."""
    asked = options.epochs, options.temperature
    found = [run for run in find_runs([options.folder]) if (run.recipe.epochs, run.recipe.temperature) == asked]
    if not found:
        raise SettingError(
            f"`folder` has no run of `epochs` {asked[0]} at `temperature` {asked[1]:g}; name another folder, number or "
            "temperature"
        )
    # Of several widths or batches, the setting with most runs is drawn.
    usual = Counter(map(setting, found)).most_common(1)[0][0]
    runs = [run for run in found if setting(run) == usual]
    claim(all(run.finished for run in runs), "every run has taken its last step")
    figure = draw_check(runs)
    rows = compare([run for run in runs if run.recipe.d0 is None])["rows"]
    by_head = {row["projector"]: row for row in reversed(rows)}
    check(by_head, options.temperature)
    first = runs[0].recipe
    measured = "; ".join(
        f"{row['row']}: {row['top1']:.1f}{'' if row['top1_spread'] is None else ' ± {:.1f}'.format(row['top1_spread'])} %, "
        f"rank {row['representation_effective_rank']:.3g}"
        for row in rows
    )
    return Result(
        figure,
        table(runs),
        f"""{first.arch} (representation of {runs[0].facts["representation_dim"]}) trained for {first.epochs} epochs by NT-Xent
(temperature {first.temperature}) on {first.images or runs[0].facts["images"]} training images of CIFAR-10, batches of {first.batch_size}; seeds {", ".join(str(seed) for seed in sorted({run.recipe.seed for run in runs}))}.
Spectra over 10 000 training images under the two views of the loss, in evaluation mode; linear probe by logistic regression on the
same images without augmentation, its decay chosen on a held-out fifth, top-1 on the 10 000 test images. Bands and dots are seeds. As
Fig. 2: covariance eigenvalues of SimCLR's embedding. As Fig. 7b and 9: of the representation. As Fig. 10: of DirectCLR's whole
representation and of the sub-vector that the loss sees. As Fig. 12: top-1 against d0, at the sizes that were trained.
Top-1 and effective rank of the representation: {measured}.""",
        f"""{CLAIMED[options.temperature == PAPERS]}; DirectCLR's representation has a higher effective rank than its sub-vector; every run is finished.""",
    )


def setting(run: Run) -> tuple[object, ...]:
    """The settings in which compared runs agree, besides the epochs."""
    return tuple(getattr(run.recipe, name) for name in SHARED)


def check(by_head: dict[str, dict[str, object]], temperature: float) -> None:
    """Claim what the figure asserts of the rows of Table 1."""
    there = [head for head in TABLE_1 if head in by_head]
    claim(len(there) == len(TABLE_1), f"each row of Table 1 has runs, not only {there}")
    claim(all(len(by_head[head]["seeds"]) >= 3 for head in there), "each row of Table 1 has three seeds")
    rank = {head: by_head[head]["representation_effective_rank"] for head in there}
    top1 = {head: by_head[head]["top1"] for head in there}
    for head in ("mlp", "linear"):
        if temperature == PAPERS:
            claim(
                rank.get("none", 0) > LESS * rank.get(head, 0),
                f"the representation has the higher effective rank without a projector: {rank.get('none')} against "
                f"{rank.get(head)} with {head}",
            )
        else:
            claim(
                LESS * rank.get("none", math.inf) < rank.get(head, 0) and top1["none"] < top1[head],
                f"without a projector effective rank and top-1 are lower: {rank.get('none')} and {top1.get('none')} "
                f"against {rank.get(head)} and {top1.get(head)} with {head}",
            )
    direct = by_head.get("low-rank-diagonal")
    claim(
        direct is not None and rank["low-rank-diagonal"] > direct["embedding_effective_rank"],
        "DirectCLR's representation holds more than the sub-vector that the loss sees",
    )


def table(runs: list[Run]) -> list[dict[str, object]]:
    """A row for each run."""
    return [
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


if __name__ == "__main__":
    draw.main()
