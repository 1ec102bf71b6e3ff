"""`sweep` in Python: what the command does, with a result to tabulate and draw."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from threadpoolctl import threadpool_limits

from dyncollapse.runtime.canvas import axes_or_new
from dyncollapse.runtime.dispatch import Workers
from dyncollapse.runtime.page.render import render
from dyncollapse.runtime.process import check_device
from dyncollapse.runtime.results import html_table, plain
from dyncollapse.runtime.settings import SettingError, option, quoted
from dyncollapse.simulation.configuration import Configuration
from dyncollapse.sweeps.grid import axes_of, expand_grid
from dyncollapse.sweeps.layout import Layout
from dyncollapse.sweeps.options import Executor as ExecutorName
from dyncollapse.sweeps.options import WorkerOptions, workers_of
from dyncollapse.sweeps.page import sweep_page
from dyncollapse.sweeps.page_pictures import panel_pictures
from dyncollapse.sweeps.picture_options import SweepPlot
from dyncollapse.sweeps.schemas import Report
from dyncollapse.sweeps.sweep import Sweep
from dyncollapse.sweeps.tables import as_dataset, as_row, columns_of, to_frame

if TYPE_CHECKING:
    import pandas
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class SweepResult:
    """The results of a grid of simulations.

    Attributes:
        points: The settings of each point by its name, also of points that failed.
        reports: What run.json holds, for each finished point.
        failures: Why points failed, in one line each, by name.
        folder: Where the sweep is saved; None if it is not.

    Examples:
        >>> result = sweep(dim=4, runs=1, dynamics=("population",), aug_strength=[0.5, 1.5], workers=1)
        >>> result
        SweepResult(2 of 2 points, 2 aug_strength: dimensions collapsed in 1, strong-augmentation 1)
        >>> [(row["aug_strength"], row["collapsed"], row["mechanism"]) for row in result.rows()]
        [(0.5, 0, 'none'), (1.5, 2, 'strong-augmentation')]
    """

    def __init__(
        self,
        points: Mapping[str, Configuration],
        reports: Mapping[str, Report],
        failures: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        """Keep the results of a sweep.

        Args:
            points: As in the class.
            reports: As in the class; of other points they are left out.
            failures: As in the class.
            folder: As in the class.
        """
        self.points = dict(points)
        self.reports = {name: reports[name] for name in points if name in reports}
        self.failures = dict(failures or {})
        self.folder = folder

    @property
    def axes(self) -> dict[str, list[Any]]:
        """The settings that vary independently, each with its values."""
        return axes_of(list(self.points.values()))

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per finished point.

        Returns:
            Rows with the point's name, its settings, status and verdict, distances between the dynamics, and for each
            dynamics its last loss, flow time, seconds and singular values of P (mean over runs), as "sgd_loss" and
            "sgd_sigma_1". All rows have the same keys; what a point lacks is None.
        """
        rows = [plain(as_row(name, self.points[name], report)) for name, report in self.reports.items()]
        return [{column: row.get(column) for column in columns_of(rows)} for row in rows]

    def to_dict(self) -> dict[str, Any]:
        """Return what `dyncollapse sweep --json` prints: folder, number of points, rows and failures.

        Returns:
            Plain JSON values.
        """
        lost = [
            {"point": name, "failure": text, "config": self.points[name].as_dict()}
            for name, text in self.failures.items()
        ]
        folder = None if self.folder is None else str(self.folder)
        return {"folder": folder, "points": len(self.points), "table": self.rows(), "failures": plain(lost)}

    def to_pandas(self) -> "pandas.DataFrame":
        """Return `rows` as a data frame.

        Returns:
            One row per finished point.

        Raises:
            ValueError: If pandas is not installed; the extra `dyncollapse[tables]` installs it.
        """
        return to_frame(self.rows())

    def to_xarray(self) -> "xarray.Dataset":
        """Arrange the results over the axes of the grid, as `Sweep.to_xarray` does.

        Returns:
            A data set with a dimension per axis, and "rank" for singular values; NaN where a point failed.

        Raises:
            ValueError: If xarray is not installed (the extra `dyncollapse[tables]` installs it), or if the points are
                not every combination of the values of the axes.
        """
        return as_dataset(self.points, self.axes, self.rows())

    def plot_sweep(self, ax: "Axes | None" = None, *, over: str | None = None, **fixed: Any) -> "Axes":
        """Draw final singular values over one setting, with rest values and threshold where they are known.

        Args:
            ax: Where to draw; None for a new figure.
            over: The setting on the axis; the numeric one with most values by default.
            **fixed: A value for each other setting that varies, as `depth=2`.

        Returns:
            The axes.

        Raises:
            SettingError: If other settings vary and are not fixed, or if no setting that varies has numbers.
        """
        from dyncollapse.sweeps.pictures import plot_over

        layout = self._one_panel(over, fixed)
        ax = plot_over(axes_or_new(ax), layout.panels[0], with_threshold=layout.over == "aug_strength")
        ax.set(xlabel=option(layout.over)[2:], ylabel="final singular value, mean over runs")
        ax.legend(frameon=False, fontsize=8)
        return ax

    def plot_spectrum(self, ax: "Axes | None" = None, *, over: str | None = None, **fixed: Any) -> "Axes":
        """Draw final singular values by rank, a line for each value of one setting, as the paper's Fig. 3.

        Args:
            ax: Where to draw; None for a new figure.
            over: The setting of the lines; the numeric one with most values by default.
            **fixed: A value for each other setting that varies, as `depth=2`.

        Returns:
            The axes.

        Raises:
            SettingError: As `plot_sweep`.
        """
        from dyncollapse.sweeps.pictures import line_colours, plot_spectra

        layout = self._one_panel(over, fixed)
        ax = plot_spectra(axes_or_new(ax), layout.panels[0], option(layout.over)[2:], line_colours(layout.panels))
        ax.set(xlabel="rank", ylabel="final singular value, mean over runs")
        ax.legend(frameon=False, fontsize=8)
        return ax

    def figure(self, kind: SweepPlot = "sweep", *, over: str | None = None) -> "Figure":
        """Draw all points, a panel per combination of the other settings, as `dyncollapse sweep --plot` does.

        Args:
            kind: "sweep" or "spectrum".
            over: As for `plot_sweep`.

        Returns:
            The figure.

        Raises:
            SettingError: For another kind, and if no setting that varies has numbers.
        """
        if kind not in ("sweep", "spectrum"):
            raise SettingError(f"`kind` is {quoted(kind)}; choose sweep or spectrum")
        return self._layout(self.points, over).draw(kind)

    def _layout(self, points: Mapping[str, Configuration], over: str | None) -> Layout:
        reports = {name: report for name, report in self.reports.items() if name in points}
        layout = Layout.of(points, self.axes, reports, over)
        if layout is None:
            why = "no point is finished" if not reports else "no setting that varies has numbers"
            raise SettingError(f"there is nothing to draw: {why}")
        return layout

    def _one_panel(self, over: str | None, fixed: Mapping[str, Any]) -> Layout:
        axes = self.axes
        for name, value in fixed.items():
            if name not in axes:
                raise SettingError(
                    f"`{quoted(name)[1:-1]}` does not vary here; the axes are {', '.join(axes) or 'none'}"
                )
            if value not in axes[name]:
                raise SettingError(f"`{name}` is {quoted(value)}; the points have {quoted(axes[name])}")
        chosen = {
            name: point for name, point in self.points.items() if all(getattr(point, n) == v for n, v in fixed.items())
        }
        layout = self._layout(chosen, over)
        if len(layout.panels) > 1:
            free = [name for name in axes if name != layout.over and name not in fixed]
            wanted = ", ".join(f"{name}={axes[name][0]!r}" for name in free)
            raise SettingError(f"{', '.join(free)} vary beside {layout.over}; fix them ({wanted}), or draw `figure()`")
        return layout

    def to_html(self) -> str:
        """Write the results as the page that `dyncollapse sweep` saves as report.html.

        Returns:
            One self-contained page: in how many points dimensions collapsed, pictures, a row per point, and failures.
        """
        layout = Layout.of(self.points, self.axes, self.reports)
        pictures = [] if layout is None else panel_pictures(layout, ("sweep",))
        page = sweep_page(self.points, self.reports, self.failures, folder=self.folder, pictures=pictures)
        return render(page)

    def __repr__(self) -> str:
        """How many points are finished, over which axes, and in how many dimensions collapsed."""
        sizes = " x ".join(f"{len(values)} {name}" for name, values in self.axes.items()) or "one setting"
        causes = Counter(one["verdict"]["mechanism"] for one in self.reports.values() if one["verdict"]["collapsed"])
        named = "".join(f", {cause} {count}" for cause, count in causes.most_common())
        failed = f", {len(self.failures)} failed" if self.failures else ""
        return (
            f"SweepResult({len(self.reports)} of {len(self.points)} points{failed}, {sizes}: dimensions collapsed in "
            f"{causes.total()}{named})"
        )

    def _repr_html_(self) -> str:
        """A short row per point, for notebooks."""
        shown = [*self.axes, "collapsed", "mechanism", "sgd_vs_flow"]
        failed = [f"failed: {text}" for text in list(self.failures.values())[:3]]
        return html_table([repr(self), *failed], [{name: row[name] for name in shown} for row in self.rows()])


def sweep(
    *,
    out: str | Path | None = None,
    workers: int | Workers | None = None,
    executor: ExecutorName = "local",
    pack: int | None = None,
    scheduler: str | None = None,
    slurm: str | None = None,
    progress: Callable[[str, float, float], None] | None = None,
    **settings: Any,
) -> SweepResult:
    """Run a simulation for every combination of settings, as `dyncollapse sweep` does, and return the results.

    Nothing is saved without `out`. With it, the same call resumes a sweep, and points that are finished are read.

    Args:
        out: Folder of the sweep, new or to be resumed; None for none.
        workers: Packs of points that run at a time: by default the number of cores over `threads`, in processes. A
            script that starts processes puts its own work under `if __name__ == "__main__":`. With 1, this process runs
            them. `Workers` of one's own take the place of `executor`.
        executor: "local", "dask" or "slurm".
        pack: Most runs in one ensemble; by default the fastest number.
        scheduler: Address of a Dask scheduler.
        slurm: Options of sbatch, as "partition=gpu,time=120".
        progress: Called as progress("points", done, total); failed points count as done.
        **settings: The fields of `Configuration`, each a value or a list of values.

    Returns:
        The results; points that fail are in `failures`, and raise nothing.

    Raises:
        SettingError: For an unknown setting, one out of range, and settings that contradict each other. One line.
        ValueError: For a folder that another process uses or that holds other files, and worker processes that die at
            their start.
        OSError: If the folder cannot be written.

    References:
        Jing et al. (2022), arXiv:2110.09348, Figs. 3 and 11.

    Examples:
        >>> result = sweep(dim=4, runs=1, dynamics=("population",), aug_strength=[0.5, 1.5], depth=[1, 2], workers=1)
        >>> result.axes
        {'aug_strength': [0.5, 1.5], 'depth': [1, 2]}
        >>> result.plot_spectrum(depth=1).get_xlabel()
        'rank'
    """
    own = isinstance(workers, Workers)
    where = WorkerOptions(
        executor=executor,
        workers=None if isinstance(workers, Workers) else workers,
        pack=pack,
        scheduler=scheduler,
        slurm=slurm,
    )
    if own and executor != "local":
        raise SettingError("`workers` and `executor` both say where points run; give one of them")
    points = expand_grid({name: value for name, value in settings.items() if value is not None})
    threads = {point.threads for point in points}
    if len(threads) > 1:
        raise SettingError(f"`threads` is {quoted(sorted(map(str, threads)))}; it takes one value in a sweep")
    for device in {point.device for point in points}:
        check_device(device)
    if executor == "slurm" and out is None:
        raise SettingError("`executor` slurm needs a folder that all nodes see; give `out`")
    with nullcontext(str(out)) if out is not None else TemporaryDirectory(prefix="dyncollapse-") as folder:
        asked = Sweep(folder, points)
        chosen = (
            workers
            if isinstance(workers, Workers)
            else _here(where) or workers_of(where, points[0].threads or 1, Path(folder) / "slurm")
        )
        advance = partial(progress, "points") if progress is not None else lambda _done, _total: None
        failures = asked.run(chosen, most_runs=where.pack, progress=advance)
        return SweepResult(asked.points, asked.reports()[0], failures, None if out is None else Path(out))


def _here(where: WorkerOptions) -> Workers | None:
    """This process as the only worker, if one is wanted on this machine."""
    return Workers(_this_process, 1) if where.executor == "local" and where.workers == 1 else None


@contextmanager
def _this_process() -> Iterator[Executor]:
    """Run work at once in this process, and give it back its threads."""
    before = torch.get_num_threads()
    try:
        with threadpool_limits(None):  # leaving it restores NumPy's
            yield _AtOnce()
    finally:
        torch.set_num_threads(before)


class _AtOnce(Executor):
    """An executor whose work is done when it has been submitted. Ctrl-C interrupts it."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        future = Future[Any]()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future
