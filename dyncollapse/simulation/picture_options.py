"""Which pictures of a simulation to save, and in which format: options of the command line, in one record."""

from typing import Literal

from dyncollapse.runtime.records import Several, record, setting
from dyncollapse.runtime.settings import SettingError, quoted
from dyncollapse.simulation.configuration import Configuration

Plot = Literal["spectrum", "paths", "alignment"]
PictureFormat = Literal["png", "pdf", "svg"]


class NamedPictures:
    """What all records of pictures have: names of pictures, each once, and a file for each."""

    plot: tuple[str, ...]
    format: PictureFormat

    def __post_init__(self) -> None:
        """Check that every picture is named once."""
        if not self.plot or len(set(self.plot)) < len(self.plot):
            raise SettingError(f"`plot` is {quoted(','.join(self.plot))}; name one or more pictures, each once")

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the files."""
        return tuple(f"{name}.{self.format}" for name in self.plot)


@record
class PictureOptions(NamedPictures):
    """Pictures of a simulation, and their format.

    Raises:
        SettingError: One line for an option of another type, or for one picture named twice.

    Examples:
        >>> PictureOptions(plot=("paths", "spectrum"), format="pdf").files
        ('paths.pdf', 'spectrum.pdf')
    """

    plot: Several[Plot] = setting(
        ("spectrum",),
        "Pictures: spectrum at the end, paths over time, alignment of the first two layers; separated by commas.",
        group="pictures",
    )
    format: PictureFormat = setting("png", "Format of the pictures.", group="pictures")

    def check(self, configuration: Configuration) -> None:
        """Check that a simulation has what the pictures show.

        Args:
            configuration: Its settings.

        Raises:
            SettingError: If the alignment of a single layer is asked for.
        """
        if "alignment" in self.plot and len(configuration.layer_widths) < 3:
            raise SettingError("`plot` alignment is of two layers, and the network has one; raise `depth`, or drop it")
