"""Beyond the paper: embeddings with a known answer, the report on them, and where usual monitors are wrong."""

import textwrap

import numpy as np
import torch
from figure import Result, Whole, claim, drawn_with, like, number, plt, record
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from dyncollapse import EmbeddingReport, Planted, diagnose, planted_cases
from dyncollapse.plotting import BAND, FAINT, LEVEL, PALETTE

SHARE, TOLERANCE, HEALTHY = 1e-4, 0.1, 0.5
LOWEST, HIGHEST = 1e-17, 1e2  # of the spectra, in units of the largest eigenvalue
ALIVE, GONE = PALETTE[:2]
SMALL, NORMAL = 7, 9  # points
# Columns of the table: name in the CSV, heading, what it is, left edge and width.
COLUMNS = (
    ("report", "this report", "count, mechanism", 0.52, 0.13),
    ("std", r"std $\times \sqrt{d}$", "1: healthy", 0.66, 0.08),
    ("rankme", "$d-$RankMe", "not centred", 0.747, 0.08),
    ("participation", "$d-$PR", "centred", 0.834, 0.08),
    ("share", r"$\lambda < 10^{-4} \lambda_1$", "count", 0.92, 0.08),
)
# Cases in which each monitor has to be wrong, with --quick and without.
UNSEEN = {"few samples", "barely enough samples", "repeated rows"}
EXPECTED = {
    "std": {"normalised, rank 16", "hard collapse", "transient", "bfloat16 floor", "one dominates", "large mean"},
    "rankme": UNSEEN | {"large mean", "heavy tail", "steep tail", "one dominates"},
    "participation": UNSEEN | {"heavy tail", "steep tail", "suppression", "one dominates"},
    "share": {"few samples", "repeated rows", "heavy tail", "steep tail", "one point"},
}
NAMES, SPECTRA, TRUTH = 0.0, (0.265, 0.125), (0.405, 0.11)
SHORT = {"none": "", "strong-augmentation": "strong", "implicit-regularization": "implicit"}


@record
class Options:
    """Parameters of the planted cases."""

    samples: Whole = number(4000, "Samples of each case that does not fix them.", low=256, high=10**5, unit="samples")
    seed: Whole = like("seed", 0)


@drawn_with(Options, samples=1000)
def draw(options: Options) -> Result:
    """Draw each planted spectrum beside the collapsed dimensions that the report and four usual monitors see."""
    cases = planted_cases(options.seed, options.samples)
    reports = [diagnose(case.z, **case.others) for case in cases]
    read = [monitors(case.z, report) for case, report in zip(cases, reports, strict=True)]
    rows = [judged(*row) for row in zip(cases, reports, read, strict=True)]
    # No other threshold for the standard deviation would help: this is the one with the fewest errors here.
    values, bad = np.array([found["std"] for found in read]), np.array([case.collapsed > 0 for case in cases])
    cut, fewest = min(((t, int(((values <= t) != bad).sum())) for t in values), key=lambda pair: pair[1])
    claim(fewest >= 5, f"no threshold for the standard deviation errs in fewer than 5 cases; {cut:.3f} in {fewest}")

    wrong = {name: [str(row["case"]) for row in rows if not row[f"{name}_right"]] for name, *_ in COLUMNS}
    claim(not wrong["report"], f"the report gives count, mechanism and fate as planted, not in {wrong['report']}")
    value = {str(row["case"]): row for row in rows}
    blind, alarmed = value["normalised, rank 16"], value["large mean"]
    claim(float(str(blind["std"])) > 0.95, "the standard deviation calls rank 16 of 128 healthy")
    claim(float(str(alarmed["std"])) < 0.1, "the standard deviation calls full rank about a large mean collapsed")
    for name, expected in EXPECTED.items():
        claim(expected <= set(wrong[name]), f"{name} is wrong in {sorted(expected)} at least; it is in {wrong[name]}")

    figure = plt.figure(figsize=(9.6, 0.5 * len(cases) + 1.5))
    figure.set_layout_engine("none")  # all positions are set by hand
    table = figure.add_axes((0.015, 0.02, 0.97, 0.96))
    tabulate(figure, table, rows, cases, reports)
    asserted = "".join(f"\n{name} is wrong in: {', '.join(sorted(expected))};" for name, expected in EXPECTED.items())
    counts = ", ".join(f"{name} {len(found)}" for name, found in wrong.items())
    return Result(
        figure,
        rows,
        f"""What the report on embeddings and four usual monitors say about {len(cases)} planted cases (`planted_cases`, seed {options.seed}, {options.samples} samples where the
case does not fix them). Spectra: covariance eigenvalues over the largest, on a log axis from {LOWEST:g} (smaller ones are drawn at that edge)
to {HIGHEST:g}, against rank / d; filled: alive, open: collapsed, grey ticks: unseen in so few samples; shaded: noise floor; dotted: threshold.
Planted: collapsed dimensions and their cause, "unknown" where the input of the report does not decide it. Monitors: the standard deviation of normalised embeddings, mean over columns, times sqrt(d), read as collapse below {HEALTHY:g} (the best threshold in hindsight,
{cut:.3f}, still errs in {fewest}); d less RankMe (singular values, not centred); d less the participation ratio of covariance eigenvalues; the
number of eigenvalues below {SHARE:g} of the largest. These three are marked as wrong where they miss the planted count by more than
{TOLERANCE:g} d, the report where count, mechanism or the fate of the last dimension is not exactly as planted. Only the report names a mechanism.
Wrong, of {len(cases)}: {counts}.""",
        f"""the report is right in all; no threshold for std errs in fewer than 5; std x sqrt(d) exceeds 0.95 with 112 of 128 dimensions
gone and is below 0.1 with none gone;{asserted[:-1]}.""",
    )


def monitors(z: torch.Tensor, report: EmbeddingReport) -> dict[str, float]:
    """The values of the usual monitors: a standard deviation, and three counts of missing dimensions."""
    unit = torch.nn.functional.normalize(z.double(), dim=1)
    rankme, ratio = report.measures["rankme"], report.measures["participation_ratio"]
    assert rankme is not None
    assert ratio is not None
    return {
        "std": float(unit.std(0, correction=0).mean()) * report.dim**0.5,
        "rankme": report.dim - rankme,
        "participation": report.dim - ratio,
        "share": float((report.spectrum < SHARE * report.spectrum[0]).sum()),
    }


def judged(case: Planted, report: EmbeddingReport, read: dict[str, float]) -> dict[str, object]:
    """One row of the table: the planted answer, what each monitor says, and whether it is right."""
    v, slack = report.verdict, TOLERANCE * report.dim
    return {
        "case": case.name,
        "samples": report.samples,
        "dim": report.dim,
        "planted": case.collapsed,
        "mechanism": case.mechanism,
        "report": report.collapsed,
        "report_mechanism": v.mechanism,
        "noise_floor": report.noise_floor,
        "threshold": v.threshold,
        **read,
        "report_right": (report.collapsed, v.mechanism, v.fates[-1]) == (case.collapsed, case.mechanism, case.fate),
        "std_right": (read["std"] < HEALTHY) == (case.collapsed > 0),
        **{f"{k}_right": abs(read[k] - case.collapsed) <= slack for k in ("rankme", "participation", "share")},
    }


def tabulate(
    figure: plt.Figure,
    table: Axes,
    rows: list[dict[str, object]],
    cases: list[Planted],
    reports: list[EmbeddingReport],
) -> None:
    """Draw a row per case: name and remark, spectrum, planted answer, all monitors; the last row counts errors."""
    last = len(rows)
    table.set(xlim=(0, 1), ylim=(last + 1.3, -1.3))
    table.axis("off")
    headings = [(NAMES, 0, "planted case", ""), (*SPECTRA, "spectrum", r"$\log \lambda_k / \lambda_1$")]
    headings += [(*TRUTH, "planted", "count, mechanism")] + [(x, w, *text) for _, *text, x, w in COLUMNS]
    for x, width, heading, note in headings:
        align = "center" if width else "left"
        table.text(x + width / 2, -0.95, heading, ha=align, va="center", fontweight="bold", fontsize=NORMAL)
        table.text(x + width / 2, -0.52, note, ha=align, va="center", fontsize=SMALL, color=LEVEL)
    for y in (-0.25, last - 0.05):
        table.axhline(y, color=PALETTE[6], linewidth=0.8)
    for r, (row, case, report) in enumerate(zip(rows, cases, reports, strict=True)):
        if r and case.mechanism != cases[r - 1].mechanism:
            table.axhline(r - 0.15, color=FAINT, linewidth=0.6)
        fill_row(table, r, row, case, report)
        corners = table.transData.transform([(SPECTRA[0], r + 0.74), (sum(SPECTRA), r - 0.06)])
        box = figure.transFigure.inverted().transform(corners)
        sparkline(figure.add_axes((*box[0], *(box[1] - box[0]))), report)
    middle = {"ha": "center", "va": "center", "fontweight": "bold", "fontsize": NORMAL}
    table.text(sum(TRUTH) - TRUTH[1] / 2, last + 0.35, f"wrong, of {last}", **middle)
    legend = (
        "spectrum: filled, alive; open, collapsed; grey ticks, unseen in so few samples; shaded, noise floor; dotted, "
        f"threshold.    ✗: off by more than {TOLERANCE:g} $d$; the report: by anything"
    )
    table.text(NAMES, last + 1.0, legend, fontsize=SMALL, color=LEVEL, va="center")
    for name, _, _, x, width in COLUMNS:
        count = sum(not row[f"{name}_right"] for row in rows)
        table.text(x + width / 2, last + 0.35, f"{count}", **middle)


def fill_row(table: Axes, r: int, row: dict[str, object], case: Planted, report: EmbeddingReport) -> None:
    """Write the name, the remark, the planted answer and what each monitor says."""
    centred, middle = {"ha": "center", "va": "center", "fontsize": NORMAL}, r + 0.35
    table.text(NAMES, r + 0.02, case.name, va="center", fontweight="bold", fontsize=NORMAL)
    remark = "\n".join(textwrap.wrap(case.remark, 46))
    table.text(NAMES, r + 0.2, remark, va="top", fontsize=SMALL, color=LEVEL, linespacing=1.1)
    table.text(sum(TRUTH) - TRUTH[1] / 2, middle, said(case.collapsed, case.mechanism), **centred)
    unseen = report.verdict.fates.count("unseen")
    for name, _, _, x, width in COLUMNS:
        right = bool(row[f"{name}_right"])
        if not right:
            table.add_patch(Rectangle((x, r - 0.08), width, 0.86, color=GONE, alpha=0.18, linewidth=0))
        value = f"{row[name]:.2f}" if name == "std" else f"{row[name]:.0f}"
        if name == "report":
            value = said(report.collapsed, report.verdict.mechanism)
            value = f"{report.collapsed}, {unseen} unseen" if unseen else value
        look = {"color": PALETTE[6]} if right else {"color": GONE, "fontweight": "bold"}
        table.text(x + width / 2, middle, f"{value} {'✓' if right else '✗'}", **centred, **look)


def said(collapsed: int, mechanism: str) -> str:
    """A count and its cause in short."""
    return f"{collapsed} {SHORT.get(mechanism, mechanism)}".strip()


def sparkline(ax: Axes, report: EmbeddingReport) -> None:
    """Draw a spectrum in units of its largest value, with noise floor and threshold, collapsed dimensions open."""
    unit = float(report.spectrum[0])
    values = (report.spectrum / unit).clamp_min(2 * LOWEST).numpy()
    rank = np.arange(1, report.dim + 1) / report.dim
    gone, unseen = np.array(report.verdict.collapsed), np.array(report.verdict.fates) == "unseen"
    alive = ~(gone | unseen)
    ax.axhspan(LOWEST, min(max(report.noise_floor / unit, LOWEST), HIGHEST), color=BAND, linewidth=0)
    ax.axhline(report.verdict.threshold / unit, color=LEVEL, linestyle=":", linewidth=0.7)
    ax.plot(rank[alive], values[alive], ".", color=ALIVE, markersize=1.8)
    ax.plot(rank[unseen], values[unseen], "|", color=FAINT, markersize=2, markeredgewidth=0.5)
    ax.plot(rank[gone], values[gone], "o", color=GONE, markersize=1.7, markerfacecolor="w", markeredgewidth=0.4)
    ax.set(yscale="log", ylim=(LOWEST, HIGHEST), xlim=(-0.03, 1.03), xticks=[], yticks=[])
    ax.minorticks_off()
    ax.spines[["left", "bottom"]].set(color=FAINT, linewidth=0.5)


if __name__ == "__main__":
    draw.main()
