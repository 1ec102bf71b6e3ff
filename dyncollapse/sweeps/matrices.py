"""The files of covariances that points of a sweep name: their content is part of a point's name, and must be sound."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from dyncollapse.runtime.settings import SettingError, quoted
from dyncollapse.simulation.configuration import Configuration
from dyncollapse.simulation.task import task_of

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


def check_files(configurations: Iterable[Configuration]) -> None:
    """Refuse files and correlations of which no worker could make a task; each combination is opened once.

    Args:
        configurations: The points.

    Raises:
        ValueError: In one line, for the first file that cannot be read or holds no covariance that fits the others, and
            for a correlation out of range.

    Examples:
        >>> check_files([Configuration(dim=4, aug_dim=2, data_cov="nowhere.npy")])
        Traceback (most recent call last):
            ...
        dyncollapse.runtime.settings.SettingError: data_cov 'nowhere.npy' cannot be read: No such file or directory
    """
    distinct = {_matrices(c): c for c in configurations if any(getattr(c, name) is not None for name in FILES)}
    for configuration in distinct.values():
        task_of(configuration).to(getattr(torch, configuration.dtype))


def _matrices(configuration: Configuration) -> tuple[object, ...]:
    """The settings on which it depends whether a configuration's matrices are covariances that fit together."""
    c, files = configuration, files_of(configuration)
    beside = (c.aug_dim, c.aug_strength) if "view_corr" in files and "aug_cov" not in files else ()
    return (*(getattr(c, name) for name in FILES), c.dim, c.dtype, *beside)
