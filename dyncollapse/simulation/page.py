"""The result of a simulation as a page for a browser."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dyncollapse.runtime.page.record import Page, Picture, Table, alone
from dyncollapse.simulation.command import simulate_command
from dyncollapse.simulation.configuration import Configuration
from dyncollapse.simulation.outcome import Outcome
from dyncollapse.simulation.tables import dimension_table, remarks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_LINES = 64  # more paths than that are drawn as dots: as curves they would make up most of the page


def simulation_page(outcome: Outcome, report: Mapping[str, Any]) -> Page:
    """Put a simulation on a page.

    Args:
        outcome: The simulation and its records, at least one.
        report: The content of run.json.

    Returns:
        Verdict, pictures of spectrum, paths and alignment, a row per dimension, and what the prediction assumes.
    """
    verdict, prediction = report["verdict"], report["prediction"]
    columns, rows = dimension_table(outcome, report)
    known = any(mode["rest_singular_value"] is not None for mode in prediction["modes"])
    return Page(
        command="simulate",
        subject=_subject(outcome.simulation.configuration, outcome),
        verdict=verdict["sentence"],
        facts=remarks(outcome, report),
        pictures=_pictures(outcome, report),
        tables=[Table("Dimensions at the end", columns, rows), *([_predicted(prediction)] if known else [])],
        notes=[f"The predictions assume: {'; '.join(prediction['assumes'])}."] if known else [],
        remedies=report.get("remedies", ()),
        settings=report["config"],
        reproduce=simulate_command(outcome.simulation.configuration),
    )


def _subject(c: Configuration, outcome: Outcome) -> str:
    layers = f"{c.depth} {outcome.simulation.objective.activation} layer{'s' * (c.depth > 1)}"
    runs = f"{c.runs} run{'s' * (c.runs > 1)}"
    ran = " and ".join({"sgd": "SGD", "population": "population flow"}.get(name, name) for name in outcome.trajectories)
    return f"{layers} on {outcome.simulation.task.dim} dimensions, {c.loss}, {c.views} views, {runs} of {ran}"


def _predicted(prediction: Mapping[str, Any]) -> Table:
    """The closed forms of every mode, folded."""
    names = ("data_var", "aug_var", "rho", "rest_singular_value", "escape_time")
    rows = [[str(k), *(mode[name] for name in names)] for k, mode in enumerate(prediction["modes"], 1)]
    words = ("mode", "data var", "aug var", "rho", "singular value at rest", "escape time")
    return Table("What the closed forms predict", words, rows, folded=True)


def _pictures(outcome: Outcome, report: Mapping[str, Any]) -> list[Picture]:
    """The spectrum at the end, the paths, and the alignment of the first two layers if there are two."""
    verdict, dynamics = report["verdict"], report["dynamics"]
    name, end = next(iter(dynamics.items()))
    sigma = [value for value in end["product_singular_values"] if value is not None]
    span = f" from {max(sigma):.3g} down to {min(sigma):.3g}" if sigma else " beyond all numbers"
    alive = verdict["embedding_dim"] - verdict["collapsed"]

    # Inside the functions: importing Matplotlib fails when the user's settings of it are broken.
    def spectrum(ax: "Axes") -> None:
        from dyncollapse.simulation.pictures import plot_ends

        plot_ends(ax, outcome)

    def paths(ax: "Axes") -> None:
        from dyncollapse.simulation.pictures import plot_records

        plot_records(ax, outcome.trajectories)
        for line in ax.lines if len(ax.lines) > MOST_LINES else ():
            line.set_rasterized(True)

    def alignment(ax: "Axes") -> None:
        from dyncollapse.simulation.pictures import plot_layers

        plot_layers(ax, next(iter(outcome.trajectories.values())).final(), layer=1)

    pictures = [
        Picture(
            "Spectrum at the end",
            f"Singular values by rank on a logarithmic axis; those of {name} lie{span}. "
            f"{alive} of {verdict['embedding_dim']} dimensions lie above the threshold {verdict['threshold']:.2g}.",
            alone(spectrum),
        ),
        Picture(
            "Singular values over flow time",
            f"A line per rank, the mean over runs, up to flow time {end['time']:.4g}; at its end those of {name} lie"
            f"{span}.",
            alone(paths),
        ),
    ]
    if len(outcome.simulation.weights) > 1:
        what = f"Entries of the alignment matrix of layers 1 and 2 at the end of {name}, first run, from 0 to 1."
        pictures.append(Picture("Alignment of layers 1 and 2", what, alone(alignment)))
    return pictures
