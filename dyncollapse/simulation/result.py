"""`simulate` in Python: what the command does, with a result to question, tabulate and draw."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dyncollapse.diagnostics.remedies import Remedy, remedy_lines
from dyncollapse.diagnostics.verdict import Verdict
from dyncollapse.dynamics.trajectory import Trajectory
from dyncollapse.runtime.canvas import axes_or_new
from dyncollapse.runtime.extras import as_frame, need
from dyncollapse.runtime.folders import claimed_folder
from dyncollapse.runtime.page.render import render
from dyncollapse.runtime.process import check_device, cores
from dyncollapse.runtime.results import html_table, plain
from dyncollapse.simulation.build import build
from dyncollapse.simulation.configuration import Configuration
from dyncollapse.simulation.outcome import Outcome
from dyncollapse.simulation.page import simulation_page
from dyncollapse.simulation.presets import resolve
from dyncollapse.simulation.remedies import remedies
from dyncollapse.simulation.report import report, save
from dyncollapse.simulation.run import run

if TYPE_CHECKING:
    import pandas
    import xarray
    from matplotlib.axes import Axes


class SimulationResult:
    """What a simulation recorded, and what became of its dimensions.

    Attributes:
        outcome: The simulation with its start, and the record of each dynamics.

    Examples:
        >>> result = simulate(dim=4, aug_strength=1.5, dynamics=("population",))
        >>> result
        SimulationResult(infonce, one-sided, 4 dimensions, population: 2 of 4 collapsed, strong-augmentation)
        >>> [row["fate"] for row in result.rows()]
        ['alive', 'alive', 'dead', 'dead']
    """

    def __init__(self, outcome: Outcome) -> None:
        """Keep an outcome.

        Args:
            outcome: What `simulate` recorded; it has at least one dynamics.
        """
        self.outcome = outcome

    @property
    def configuration(self) -> Configuration:
        """All settings, with those that were not given."""
        return self.outcome.simulation.configuration

    @property
    def trajectories(self) -> Mapping[str, Trajectory]:
        """The record of each dynamics: "sgd", "flow" or "population"."""
        return self.outcome.trajectories

    @property
    def verdict(self) -> Verdict:
        """How many dimensions collapsed, and why: at the end of SGD, or of the first flow if there is no SGD."""
        verdict = self.outcome.verdict
        assert verdict is not None  # there is at least one record
        return verdict

    @property
    def remedies(self) -> tuple[Remedy, ...]:
        """What to try for the causes that the verdict names, and what would decide those that are open."""
        return remedies(self.outcome)

    def to_dict(self) -> dict[str, Any]:
        """Return what run.json holds: settings, predictions, the end of each dynamics, verdict, remedies.

        Returns:
            Plain JSON values; infinite and undefined numbers are None.
        """
        return report(self.outcome)

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per dynamics and dimension, at the end.

        Returns:
            Rows with the dynamics, the dimension's number from 1 on, variance of data and augmentation along it, rho
            (None where nothing varies), mean and standard deviation of its singular value over runs, and its fate
            (None where the verdict is on another dynamics).
        """
        judged = self.verdict.dimensions
        first = next(name for name in ("sgd", "flow", "population") if name in self.trajectories)
        rows = []
        for name, end in self.outcome.ends.items():
            columns = [column.mean(0).tolist() for column in (end.data_var, end.aug_var, end.ratio, end.singular_value)]
            spread = end.singular_value.std(0, correction=0).tolist()
            for k, (data, augmentation, ratio, value) in enumerate(zip(*columns, strict=True)):
                row = {"dynamics": name, "dimension": k + 1, "data_var": data, "aug_var": augmentation, "rho": ratio}
                row |= {"singular_value": value, "spread": spread[k]}
                rows.append(row | {"fate": judged[k].fate.value if name == first else None})
        return list(map(plain, rows))

    def to_pandas(self) -> "pandas.DataFrame":
        """Return `rows` as a data frame.

        Returns:
            One row per dynamics and dimension.

        Raises:
            ValueError: If pandas is not installed; the extra `dyncollapse[tables]` installs it.
        """
        return as_frame(self.rows())

    def to_xarray(self) -> "xarray.Dataset":
        """Return singular values and losses over time.

        Returns:
            For each dynamics NAME the variables NAME_singular_value, over NAME_time, run and rank, and NAME_loss, over
            NAME_time and run. Times are flow times t = lr x steps. The settings are attributes.

        Raises:
            ValueError: If xarray is not installed; the extra `dyncollapse[tables]` installs it.
        """
        need("xarray", "tables", "to_xarray needs xarray")
        import xarray

        data: dict[str, Any] = {}
        coordinates: dict[str, Any] = {}
        for name, path in self.trajectories.items():
            values = path.singular_values.cpu().numpy()
            data[f"{name}_singular_value"] = ((f"{name}_time", "run", "rank"), values)
            data[f"{name}_loss"] = ((f"{name}_time", "run"), path.loss.cpu().numpy())
            coordinates[f"{name}_time"] = path.time.cpu().numpy()
            coordinates["rank"] = range(1, values.shape[-1] + 1)
        settings = {key: value for key, value in self.configuration.as_dict().items() if value is not None}
        return xarray.Dataset(data, coordinates, settings)

    def plot_spectrum(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the singular values at the end of every dynamics, by rank.

        Args:
            ax: Where to draw; None for a new figure.

        Returns:
            The axes.
        """
        from dyncollapse.simulation.pictures import plot_ends

        return plot_ends(axes_or_new(ax), self.outcome)

    def plot_paths(self, ax: "Axes | None" = None) -> "Axes":
        """Draw singular values over flow time t = lr x steps, the mean over runs, for every dynamics.

        Args:
            ax: Where to draw; None for a new figure.

        Returns:
            The axes.
        """
        from dyncollapse.simulation.pictures import plot_records

        return plot_records(axes_or_new(ax), self.trajectories)

    def plot_alignment(self, ax: "Axes | None" = None, *, dynamics: str | None = None, layer: int = 1) -> "Axes":
        """Draw the magnitudes of the alignment matrix of two successive layers at the end of the first run.

        Args:
            ax: Where to draw; None for a new figure.
            dynamics: Whose end to draw; None for the first that was recorded.
            layer: Number of the lower layer, from 1 on.

        Returns:
            The axes.

        Raises:
            ValueError: If there is no such dynamics, or no such pair of layers.

        References:
            Jing et al. (2022), arXiv:2110.09348, Section 5.2.
        """
        from dyncollapse.simulation.pictures import plot_layers

        name = dynamics or next(iter(self.trajectories))
        if name not in self.trajectories:
            raise ValueError(f"dynamics is {name!r}; recorded are {', '.join(self.trajectories)}")
        weights = self.trajectories[name].final()
        if not 1 <= layer < len(weights):
            raise ValueError(
                f"layer is {layer}, and the network has {len(weights)}; an alignment is of layer k and k + 1"
            )
        return plot_layers(axes_or_new(ax), weights, layer)

    def to_html(self) -> str:
        """Write the result as the page that `dyncollapse simulate` saves as report.html.

        Returns:
            One self-contained page: verdict, pictures, tables, cautions and settings.
        """
        return render(simulation_page(self.outcome, self.to_dict()))

    def save(self, folder: str | Path) -> Path:
        """Write the records and run.json, as `dyncollapse simulate --out` does.

        Args:
            folder: A new or empty folder.

        Returns:
            The folder.

        Raises:
            ValueError: If the folder holds files, or if another process uses it.
            CannotWrite: If a file cannot be written.
        """
        with claimed_folder(Path(folder), "simulate") as claimed:
            save(self.outcome, claimed)
        return claimed

    def __repr__(self) -> str:
        """The setting and the verdict in one line."""
        c, verdict = self.configuration, self.verdict
        return (
            f"SimulationResult({c.loss}, {c.views}, {self.outcome.simulation.task.dim} dimensions, "
            f"{'+'.join(self.trajectories)}: {verdict.count} of {verdict.dim} collapsed, {verdict.mechanism.value})"
        )

    def _repr_html_(self) -> str:
        """The verdict, what to try, and the rows, for notebooks."""
        return html_table([self.verdict.sentence, *remedy_lines(self.remedies, width=10_000)], self.rows())


def simulate(
    *, progress: Callable[[str, float, float], None] | None = None, threads: int | None = None, **settings: Any
) -> SimulationResult:
    """Run a toy simulation, as `dyncollapse simulate` does, and return its result.

    Nothing is saved; `SimulationResult.save` does that.

    Args:
        progress: Called as progress(name of the dynamics, done, total).
        threads: CPU threads; None for the number of cores.
        **settings: The fields of `Configuration`, spelled as there, for example `aug_strength=1.5`. Those that are not
            given follow from the others, as on the command line.

    Returns:
        Records, verdict, tables and pictures.

    Raises:
        SettingError: For an unknown setting, one out of range, and settings that contradict each other. One line.
        Diverged: If SGD leaves its bounds.
        FlowFailed: If a solver gives up.

    References:
        Jing et al. (2022), arXiv:2110.09348, Sections 4 and 5.

    Examples:
        >>> result = simulate(dim=4, aug_strength=0.5, dynamics=("population",))
        >>> result.verdict.count, result.verdict.sentence
        (0, 'No dimension of 4 collapsed.')
        >>> simulate(aug_strenght=1.5)
        Traceback (most recent call last):
            ...
        dyncollapse.runtime.settings.SettingError: there is no setting 'aug_strenght'; ...
    """
    settings["threads"] = threads
    configuration = resolve({name: value for name, value in settings.items() if value is not None})
    check_device(configuration.device)
    threads = configuration.threads or cores()
    return SimulationResult(run(build(configuration), progress or _silent, lambda _outcome: None, threads=threads))


def _silent(_name: str, _done: float, _total: float) -> None:
    """Report no progress."""
