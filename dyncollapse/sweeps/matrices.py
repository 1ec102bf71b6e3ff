"""The files of covariances that points of a sweep name: their content is part of a point's name."""

import hashlib
from pathlib import Path
from typing import Any

from dyncollapse.runtime.settings import SettingError, quoted
from dyncollapse.simulation.configuration import Configuration

# Settings that name a file; `view_corr` may also be a number.
FILES = ("data_cov", "aug_cov", "view_corr")


def files_of(configuration: Configuration) -> dict[str, str]:
    """Return the files that a configuration names, by setting.

    Args:
        configuration: The settings.

    Returns:
        Paths as they were given.

    Examples:
        >>> files_of(Configuration(data_cov="C.npy", views="correlated", view_corr="0.5"))
        {'data_cov': 'C.npy'}
    """
    values = {name: getattr(configuration, name) for name in FILES}
    return {name: value for name, value in values.items() if value is not None and not _is_number(value, name)}


def _is_number(text: str, name: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return name == "view_corr"


def with_contents(configuration: Configuration) -> dict[str, Any]:
    """Return the settings of a configuration as plain values, with digests in place of the files that they name.

    Args:
        configuration: The settings.

    Returns:
        Values by setting.

    Raises:
        SettingError: For a file that cannot be read.
    """
    digests = {name: _digest(name, path) for name, path in files_of(configuration).items()}
    return configuration.as_dict() | digests


def _digest(name: str, path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SettingError(f"`{name}` {quoted(path)} cannot be read: {error.strerror or error}") from None
