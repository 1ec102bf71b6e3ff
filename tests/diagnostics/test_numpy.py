"""NumPy arrays are taken wherever tensors are, with the same result."""

import inspect

import numpy as np
import pytest
import torch
from torch import Tensor

import dyncollapse

G = np.random.default_rng(0)
Z, Z_POS, SPECTRUM = G.normal(size=(40, 3)), G.normal(size=(40, 3)), np.array([3.0, 1.0, 0.5])
SQUARE = np.eye(3) + 0.1


def moments(rows):
    added = dyncollapse.Moments(3)
    added.update(rows)
    return added.covariance


def monitored(z, z_pos):
    monitor = dyncollapse.Monitor()
    monitor.update(z, z_pos)
    return monitor.compute().spectrum


# By exported name: a call, and the arrays that it is given.
CALLS = {
    "Moments": (moments, Z),
    "Monitor": (monitored, Z, Z_POS),
    "alpha_req": (lambda values: dyncollapse.alpha_req(values, first=1), SPECTRUM),
    "collapse_level": (dyncollapse.collapse_level, SPECTRUM),
    "compare_conventions": (
        lambda *views: torch.tensor([one.value for one in dyncollapse.compare_conventions(*views) if one.value]),
        *(Z, Z_POS),
    ),
    "covariance_spectrum": (dyncollapse.covariance_spectrum, Z),
    "diagnose": (lambda *views: dyncollapse.diagnose(*views).spectrum, Z, Z_POS),
    "diagnose_by": (
        lambda *views: dyncollapse.diagnose_by(views[0], np.arange(len(Z)) % 2, views[1]).whole.spectrum,
        *(Z, Z_POS),
    ),
    "diagnose_tokens": (
        lambda z: dyncollapse.diagnose_tokens(z, "all").spectrum,
        np.stack([Z, Z_POS]),
    ),
    "effective_rank": (dyncollapse.effective_rank, SPECTRUM),
    "intrinsic_dimension": (dyncollapse.intrinsic_dimension, SPECTRUM),
    "judge_spectrum": (lambda values: dyncollapse.judge_spectrum(values, 0.6, 1e-9, 3).fates, SPECTRUM),
    "lidar": (dyncollapse.lidar, np.stack([Z, Z_POS])),
    "lidar_from_covariances": (dyncollapse.lidar_from_covariances, SQUARE, np.eye(3)),
    "mode_singular_values": (lambda p, v: dyncollapse.mode_singular_values(p, v, [[0, 1], [2]]), SQUARE, np.eye(3)),
    "noise_floor": (lambda second: dyncollapse.noise_floor(second, 1.0, second.dtype), SPECTRUM.astype("f2")),
    "participation_ratio": (dyncollapse.participation_ratio, SPECTRUM),
    "participation_ratio_unbiased": (
        lambda values, fourth: dyncollapse.participation_ratio_unbiased(values, 40, fourth),
        *(SPECTRUM, np.array(30.0)),
    ),
    "principal_directions": (lambda z: dyncollapse.principal_directions(z)[0], Z),
    "rankme": (dyncollapse.rankme, Z),
    "rankme_from_eigenvalues": (dyncollapse.rankme_from_eigenvalues, SPECTRUM),
    "signal_rank": (dyncollapse.signal_rank, Z, Z + 0.1 * Z_POS),
    "stable_rank": (dyncollapse.stable_rank, Z),
    "unbiased_traces": (
        lambda values, fourth: torch.stack(dyncollapse.unbiased_traces(values, 40, fourth)),
        *(SPECTRUM, np.array(30.0)),
    ),
}


def takes_arrays(exported):
    """Whether a function, or a method that a class adds rows by, has an array among its parameters."""
    function = getattr(exported, "update", None) if inspect.isclass(exported) else exported
    if not inspect.isfunction(function):
        return False
    kinds = [str(parameter.annotation) for parameter in inspect.signature(function).parameters.values()]
    return any("Tensor" in kind or "ndarray" in kind or "Any" in kind for kind in kinds)


def test_every_exported_function_of_arrays_is_called():
    exported = {name: getattr(dyncollapse, name) for name in dyncollapse.__all__}
    own = {
        name
        for name, value in exported.items()
        if getattr(value, "__module__", "").startswith("dyncollapse.diagnostics.") and takes_arrays(value)
    }
    assert own == CALLS.keys()


@pytest.mark.parametrize("name", CALLS)
def test_numpy_arrays_give_what_tensors_give(name):
    call, *arrays = CALLS[name]
    of_arrays, of_tensors = call(*arrays), call(*map(torch.from_numpy, arrays))
    if isinstance(of_tensors, Tensor):
        assert torch.equal(of_arrays, of_tensors)
    else:
        assert of_arrays == of_tensors


@pytest.mark.parametrize("dtype", ["f2", "f4", "i4", ">f8"])
def test_other_formats_of_spectra_are_taken(dtype):
    values = np.array([4, 2, 2], dtype)
    assert float(dyncollapse.participation_ratio(values)) == pytest.approx(64 / 24, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("effective_rank", [np.ones(3) + 0j], "values of the spectrum are complex; give real ones"),
        ("rankme", [np.ones(3)], r"the embeddings have shape \(3,\); give a matrix"),
        ("stable_rank", [np.ones(3)], r"have shape \(3,\); give a matrix"),
        ("covariance_spectrum", [np.ones(3)], r"the embeddings have shape \(3,\); give a matrix"),
        ("principal_directions", [np.ones(3)], r"the embeddings have shape \(3,\); give a matrix"),
        ("lidar", [np.ones((4, 3))], r"the embeddings have shape \(4, 3\); LiDAR needs \(views, samples, dimensions\)"),
        ("lidar_from_covariances", [np.ones(3), np.ones(3)], "give two square ones of one shape"),
        ("signal_rank", [np.ones((9, 3)), np.ones((9, 2))], "give two of one shape"),
        ("noise_floor", [SPECTRUM, 1.0, "U3"], "is no format of numbers that torch has"),
        ("collapse_level", [np.array(["a"])], "eigenvalues are str"),
    ],
)
def test_what_is_no_array_of_the_right_shape_is_refused_in_one_line(name, arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        getattr(dyncollapse, name)(*arguments)
    assert len(str(caught.value).splitlines()) == 1
