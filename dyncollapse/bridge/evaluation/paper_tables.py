"""Compare runs with the rows of the paper's Tables 1 and 2, and say what differs."""

from collections.abc import Callable, Sequence
from typing import TypedDict

from dyncollapse.bridge.evaluation.associations import Association, associations
from dyncollapse.bridge.evaluation.orders import Order, contradictions, orders
from dyncollapse.bridge.evaluation.paper_rows import RowValues, table_values
from dyncollapse.bridge.training.checkpoints import checkpoints
from dyncollapse.bridge.training.run_folder import Run

PAPER = {"arch": "resnet50", "epochs": 100, "batch_size": 4096}
IMAGENET_IMAGES = 1281167
IMAGENET = f"ImageNet ({IMAGENET_IMAGES} images)"


class Comparison(TypedDict):
    """The rows of the table, what can be said of their order and of what goes with top-1, and sentences on them."""

    rows: list[RowValues]
    orders: list[Order]
    associations: list[Association]
    differences: list[str]
    contradictions: list[str]
    unfinished: list[str]


def compare(runs: Sequence[Run]) -> Comparison:
    """Compare runs with the paper's Tables 1 and 2.

    Args:
        runs: Runs of any projectors and seeds.

    Returns:
        Plain JSON values: `rows`, a dict for each row of the table; `orders`, one for each pair of rows, from `orders`;
        `associations`, one for each measure, from `associations`; and lists of sentences: `differences` in settings,
        `contradictions`, the orders that are reversed here, and `unfinished` runs.

    References:
        Jing et al. (2022), arXiv:2110.09348, Tables 1 and 2, Appendix F.

    Examples:
        >>> from pathlib import Path
        >>> from dyncollapse.bridge import Run, resolve
        >>> facts = {"data": "digits", "images": 1297, "representation_dim": 128, "embedding_dim": 64, "steps": 600}
        >>> probe = {"method": "logistic", "dimensions": 128, "top1": 94.0, "error": 1.1, "step": 600}
        >>> run = Run(Path("mlp"), resolve({"data": "digits"}), facts, [probe], None, [{"step": 600, "loss": 4.1}])
        >>> compared = compare([run])
        >>> [(row["row"], row["paper_top1"], row["top1"]) for row in compared["rows"]]
        [('nonlinear, 2 layers', 66.5, 94.0)]
        >>> compared["differences"][0]
        'data: digits (1297 images) here, ImageNet (1281167 images) in the paper'
    """
    compared = orders(runs)
    return {
        "rows": table_values(runs),
        "orders": compared,
        "associations": associations(runs),
        "differences": differences(runs) if runs else [],
        "contradictions": contradictions(compared),
        "unfinished": unfinished(runs),
    }


def differences(runs: Sequence[Run]) -> list[str]:
    """Sentences on the settings in which runs differ from the paper's."""
    sentences = []

    def values(get: Callable[[Run], object]) -> str:
        return ", ".join(sorted({str(get(run)) for run in runs}, key=lambda text: (len(text), text)))

    compared: tuple[tuple[str, Callable[[Run], object], object], ...] = (
        ("data", _data, IMAGENET),
        ("backbone", lambda run: run.recipe.arch, PAPER["arch"]),
        ("representation", lambda run: run.facts["representation_dim"], 2048),
        ("image size", lambda run: run.recipe.image_size, 224),
        ("temperature", lambda run: run.recipe.temperature, 0.1),
        ("weight decay", lambda run: f"{run.recipe.weight_decay:g}", "1e-06"),
        ("epochs", lambda run: run.recipe.epochs, PAPER["epochs"]),
        ("batch size", lambda run: run.recipe.batch_size, PAPER["batch_size"]),
        ("optimiser", lambda run: f"{run.recipe.optimiser} at lr {run.recipe.lr:g}", "lars at lr 4.8"),
        ("augmentations", lambda run: run.recipe.augment, "imagenet"),
        ("spectra", _diagnosed, "of the validation images, not augmented"),
        ("probe", lambda run: " and ".join(sorted({p["method"] for p in run.probes})) or "none yet", "sgd"),
    )
    for name, get, paper in compared:
        here = values(get)
        if here != str(paper):
            sentences.append(f"{name}: {here} here, {paper} in the paper")
    seeds = {run.recipe.seed for run in runs}
    bars = "with the standard deviation over them" if len(seeds) > 1 else "so that no spread over seeds is known"
    sentences.append(f"seeds: {len(seeds)} here, {bars}; one in the paper, without error bars")
    return sentences


def _data(run: Run) -> str:
    images = run.facts["images"]
    return IMAGENET if images == IMAGENET_IMAGES else f"{run.facts['data']} ({images} images)"


def _diagnosed(run: Run) -> str:
    if run.diagnosis is None:
        return "none yet"
    config = run.diagnosis["config"]
    return f"of the {config['split']} images, {config['views']} views"


def unfinished(runs: Sequence[Run]) -> list[str]:
    """Sentences on runs that lack their last step or a probe."""
    sentences = []
    for run in runs:
        if not run.finished:
            at = run.log[-1]["step"] if run.log else 0
            kept = "" if checkpoints(run.folder) else ", without a checkpoint"
            sentences.append(f"{run.folder} is at step {at} of {run.facts.get('steps')}{kept}")
        elif run.top1() is None:
            sentences.append(f"{run.folder} has no probe yet: dyncollapse bridge probe --checkpoint {run.folder}")
    return sentences


def as_markdown(compared: Comparison) -> str:
    """A comparison as Markdown tables: the rows, and the orders if there are any."""
    tables = (rows_as_markdown(compared["rows"]), orders_as_markdown(compared["orders"]))
    return "\n".join(filter(None, tables))


def rows_as_markdown(values: Sequence[RowValues]) -> str:
    """The rows as a Markdown table."""
    head = "| projector | paper | top-1 here | seeds | outputs | RankMe r | effective rank r | effective rank z |"
    lines = [head, "|---|---|---|---|---|---|---|---|"]
    for row in values:
        top1 = as_top1(row["top1"], row["top1_spread"])
        ranks = (
            row["representation_rankme"],
            row["representation_effective_rank"],
            row["embedding_effective_rank"],
        )
        cells = [row["row"], as_top1(row["paper_top1"]), top1, len(row["seeds"])]
        lines.append(f"| {' | '.join(map(str, [*cells, row['embedding_dim'], *map(as_number, ranks)]))} |")
        if row["subvector_top1"] is not None:
            top1 = as_top1(row["subvector_top1"], row["subvector_spread"])
            paper = as_top1(row["paper_subvector_top1"])
            lines.append(f"| probed on the sub-vector only | {paper} | {top1} | | | | | |")
    return "\n".join(lines) + "\n"


def orders_as_markdown(compared: Sequence[Order]) -> str:
    """The orders of rows as a Markdown table; empty if there are none."""
    if not compared:
        return ""
    head = (
        "| better in the paper | worse | settings | paper | here | 95 % interval | seeds | Holm's p | seen | verdict |"
    )
    lines = [head, "|---" * (head.count("|") - 1) + "|"]
    for order in compared:
        interval = order["interval"]
        cells = [order["better"], order["worse"], order["setting"] or "-", f"{order['paper']:+.1f}"]
        cells += [f"{order['difference']:+.1f}"]
        cells += ["-" if interval is None else f"{interval[0]:+.1f} to {interval[1]:+.1f}", seeds_in_words(order)]
        cells += [as_number(order["p_holm"]), as_top1(order["detectable"]), order["verdict"]]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def seeds_in_words(order: Order) -> str:
    """The number of seeds that were compared: those that both rows share, or else those of each."""
    better, worse = order["seeds"]
    same = better == worse == order["shared"]
    return str(order["shared"]) if order["test"] == "paired t" or same else f"{better}, {worse}"


def as_top1(value: float | None, spread: float | None = None) -> str:
    """Format an accuracy in percent, with its spread over seeds if there is one; a dash for None."""
    return "-" if value is None else f"{value:.1f}" + ("" if spread is None else f" ± {spread:.1f}")


def as_number(value: float | None) -> str:
    """Format a number with three digits; a dash for None."""
    return "-" if value is None else f"{value:.3g}"
