"""The distribution of a simulation's data and augmentation."""

from torch import Tensor

from dyncollapse.model.gaussian import GaussianTask
from dyncollapse.runtime.settings import SettingError
from dyncollapse.simulation.configuration import Configuration
from dyncollapse.simulation.covariance_files import read_covariance


def task_of(configuration: Configuration) -> GaussianTask:
    """Make the task of a configuration: of single variances, or of covariances from files.

    Args:
        configuration: The settings.

    Returns:
        The task, in float64.

    Raises:
        SettingError: For files that cannot be read, and matrices that are no covariances of this size.
    """
    c = configuration
    plain = GaussianTask.block(c.dim, c.aug_dim, c.aug_strength, c.data_var, c.view_convention)
    if c.data_cov is None and c.aug_cov is None and c.view_corr is None:
        return plain
    data = plain.data_cov if c.data_cov is None else read_covariance("data_cov", c.data_cov, c.dim)
    aug = plain.aug_cov if c.aug_cov is None else read_covariance("aug_cov", c.aug_cov, c.dim)
    noise = None if c.view_corr is None else _noise(c.view_corr, aug)
    try:
        return GaussianTask(data, aug, c.view_convention, noise)
    except ValueError as error:
        raise SettingError(str(error)) from None


def _noise(text: str, aug: Tensor) -> Tensor:
    try:
        correlation = float(text)
    except ValueError:
        return read_covariance("view_corr", text, len(aug))
    if not -1 <= correlation <= 1:
        raise SettingError(f"`view_corr` is {text}; a correlation must be between -1 and 1")
    return correlation * aug
