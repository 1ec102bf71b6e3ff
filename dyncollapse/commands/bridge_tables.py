"""What the bridge's commands print."""

from collections.abc import Mapping
from typing import Any

from dyncollapse.bridge.evaluation.diagnose import DiagnosedSpaces
from dyncollapse.bridge.evaluation.paper_tables import as_number, as_top1
from dyncollapse.bridge.evaluation.probe import Probed
from dyncollapse.commands.console import augmentation_sentence, open_console, open_table, spectrum_lines

SHORT = {"strong-augmentation": "augm.", "implicit-regularization": "regul."}  # as the last column has room for
WIDTH_OF_ALL = 110  # columns of the whole table; on fewer, ranks and verdicts are left to --json
MEASURES = ("rankme", "effective_rank", "participation_ratio", "stable_rank", "alpha_req")


def print_both(both: DiagnosedSpaces, what: str, *, to_stderr: bool) -> None:
    """Print both spaces' spectra, their measures side by side, the layers' alignment and the verdicts."""
    console = open_console(to_stderr)
    plain = not console.encoding.lower().startswith("utf")
    console.print(what, soft_wrap=True)
    for text in both.assumptions:
        console.print(f"assumed: {text}", soft_wrap=True)
    for space, report in both.reports.items():
        console.print()
        console.print(f"{space}: {report.samples} samples x {report.dim} dimensions")
        lines = spectrum_lines(
            report.spectrum.tolist(), report.noise_floor, report.verdict.threshold, plain=plain, width=60, height=9
        )
        console.print(*lines, sep="\n", soft_wrap=True)
    console.print()
    table = open_table("measure", *both.reports, left=1)
    for name in MEASURES:
        table.add_row(name, *(as_number(report.measures[name]) for report in both.reports.values()))
    for name, values in (
        ("collapsed", [f"{r.collapsed} of {r.dim}" for r in both.reports.values()]),
        ("mechanism", [r.verdict.mechanism for r in both.reports.values()]),
    ):
        table.add_row(name, *values)
    console.print(table)
    console.print()
    for layer in both.layers:
        found = layer.alignment
        console.print(
            f"alignment of {layer.first} and {layer.second}: {found.pattern}, share {found.alignment:.2f} of |A|^2 in "
            f"order, {found.permuted_alignment:.2f} on the best matching of {len(found.blocks)} groups of singular "
            f"values that are told apart; between them: {layer.between}",
            soft_wrap=True,
        )
    for space, report in both.reports.items():
        if report.ratios is not None:
            console.print(f"{space}: {augmentation_sentence(report)}", soft_wrap=True)
        for text in report.warnings:
            console.print(f"warning: {space}: {text}", style="yellow", soft_wrap=True)
    for space, report in both.reports.items():
        console.print(f"{space}: {report.verdict.sentence}", style="bold", soft_wrap=True)


def print_probe(found: Probed, *, to_stderr: bool) -> None:
    """Print a probe's result in one line."""
    part = "" if found.dimensions == found.of else f", the first {found.dimensions} of {found.of} dimensions only"
    open_console(to_stderr).print(
        f"linear probe ({found.method}{part}): top-1 {found.top1:.1f} ± {found.error:.1f} % on {found.test} test "
        f"images, {found.train_top1:.1f} % on {found.train} training images",
        soft_wrap=True,
    )


def print_table(compared: Mapping[str, Any], *, to_stderr: bool) -> None:
    """Print the paper's Tables 1 and 2 beside what runs gave, and what differs: what `compare` returns."""
    console = open_console(to_stderr)
    wide = console.width >= WIDTH_OF_ALL
    more = ("RankMe r", "erank r", "erank z", "collapsed r", "by") if wide else ()
    table = open_table("projector", "paper", "top-1 here", "seeds", "outputs", *more, left=1)
    for row in compared["rows"]:
        cells = [row["row"] + ("" if row["finished"] else " (unfinished)"), as_top1(row["paper_top1"])]
        cells += [as_top1(row["top1"], row["top1_spread"]), str(len(row["seeds"])), str(row["embedding_dim"])]
        if wide:
            ranks = ("representation_rankme", "representation_effective_rank", "embedding_effective_rank")
            cells += [as_number(row[name]) for name in ranks]
            collapsed = row["collapsed"]
            cells.append("-" if collapsed is None else f"{collapsed:.3g} of {row['representation_dim']}")
            told = (row["mechanism"] or "none").split("/")
            cells.append("/".join(SHORT.get(name, name) for name in told if name != "none" or told == ["none"]))
        table.add_row(*cells)
        if row["subvector_top1"] is not None:
            top1 = as_top1(row["subvector_top1"], row["subvector_spread"])
            table.add_row("  probed on the sub-vector", as_top1(row["paper_subvector_top1"]), top1)
    console.print(table)
    titles = {"differences": "Unlike the paper", "contradictions": "Against the paper", "unfinished": "Unfinished"}
    for name, title in titles.items():
        for line in compared[name]:
            console.print(f"{title}: {line}", soft_wrap=True)
