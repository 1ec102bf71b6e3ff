"""Every public function and record of the wings that compute takes arrays for tensors, and gives the same bits."""

import dataclasses
import inspect
import itertools
import os
import pickle
import subprocess
import sys
from functools import cache
from types import FunctionType, SimpleNamespace

import numpy as np
import pytest
import torch
from jaxtyping import Real
from torch import Tensor

import dyncollapse
from dyncollapse import (
    GaussianTask,
    ModeForces,
    Objective,
    PairMoments,
    Pairs,
    SelfDistillation,
    byol_rest,
    mode_dimensions,
)
from dyncollapse.model.array_arguments import takes_arrays
from dyncollapse.model.self_distillation import OnlineMoments

WINGS = ("dyncollapse.model.", "dyncollapse.theory.", "dyncollapse.dynamics.", "dyncollapse.simulation.")
AS_STORED = ("blockwise_covariance",)  # keeps integers, and computes in float32 where nothing is float64

# Whole numbers, so that every type holds them: two layers, their velocities, rows, covariances.
LOWER, UPPER = [[4, 1, 0], [0, 2, 1], [1, 0, 1]], [[1, 0, 2], [1, 3, 0], [0, 1, 1]]
MOVED = [[1, 0, 2], [0, 1, 1], [3, 0, 1]]
ROWS, SHIFTED = [[1, 0, 2], [0, 2, 1], [3, 1, 0], [1, 1, 1]], [[1, 1, 2], [0, 2, 0], [2, 1, 0], [1, 0, 1]]
DATA, AUGMENTATION = [[2, 1, 0], [1, 3, 0], [0, 0, 1]], [[1, 0, 0], [0, 1, 1], [0, 1, 4]]
WEIGHTS = [[0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]]
JACOBIAN = [[[[int(a == c and b == e) for e in range(3)] for c in range(3)] for b in range(3)] for a in range(3)]


@cache
def records(dtype):
    """What is given beside tensors and arrays: made once, as no function changes it."""
    isotropic = GaussianTask.block(3, 0)
    moments = PairMoments(*(torch.eye(3, dtype=dtype) * scale for scale in (2, 2, 1)))
    return SimpleNamespace(
        task=GaussianTask(torch.tensor(DATA, dtype=dtype), torch.tensor(AUGMENTATION, dtype=dtype)),
        isotropic=isotropic,
        isotropic_as_given=isotropic if dtype == torch.float64 else isotropic.to(dtype),
        drawn=Pairs(torch.tensor(ROWS, dtype=dtype), torch.tensor(SHIFTED, dtype=dtype)),
        moments=moments,
        forces=ModeForces(*(torch.tensor([1.0, 2.0, 3.0], dtype=dtype) for _ in range(3)), None),
        seen=OnlineMoments.of_task(moments),
        narrow=byol_rest(GaussianTask.block(3, 1, 0.5, views="two-sided"), 0.01),
        dimensions=mode_dimensions((as_torch(LOWER),), isotropic),
    )


def arguments(make, dtype=torch.float64):
    """By name, what each function is called with; `make` turns nested lists into a tensor or an array."""
    w1, w2, moved, z, z_pos, cov = map(make, (LOWER, UPPER, MOVED, ROWS, SHIFTED, DATA))
    given = records(dtype)
    task, isotropic, drawn = given.task, given.isotropic, given.drawn
    time, layers, objective = make([0, 1]), [w1, w2], Objective()
    flow = {"weights": layers, "time": time, "rtol": 1e-2}
    views = {"z": z, "z_pos": z_pos, "negatives": z_pos}
    population = {"product": w1, "task": task, "objective": objective}
    network = {"self": objective, "weights": layers, "pairs": drawn, "biases": [make([1, 2, 3])] * 2}
    path = {"time": time, "weights": [make([LOWER, MOVED])], "loss": time, "biases": [make([[1, 2, 3], [3, 4, 5]])]}
    path |= {"predictor": make([LOWER, MOVED]), "target": [make([UPPER, LOWER])]}
    spectrum, blocks = make([2, 1, 0]), [[0, 1], [2]]
    moments, forces, seen = given.moments, given.forces, given.seen
    distilled = SelfDistillation()
    state = {"self": distilled, "weights": layers, "state": [moved]}
    rested = {
        name: make([1, 2, 3]) for name in ("signal", "view_var", "critical_decay", "predictor", "encoder", "basin")
    }
    return {
        "AlignmentReport": {
            **{"imbalance_spectrum": spectrum, "imbalance_norm": 2.0, "product_gaps": time, "blocks": blocks},
            **{"sines": time, "bounds": time, "permutation": [0, 1, 2], "alignment": 1.0, "permuted_alignment": 1.0},
        },
        "ByolRest": {"directions": cov, **rested, "weight_decay": 0.0, "predictor_rate": 1.0, "depth": 1},
        "ContrastiveCovariance": {"data": cov, "augmentation": moved},
        "GaussianTask": {"data_cov": cov, "aug_cov": make(AUGMENTATION)},
        "GaussianTask.augment": {"self": task, "clean": z, "generator": torch.Generator().manual_seed(0)},
        "LimitDistances": {"time": time, "learning_rate": time, "batches": time, "samples": time},
        "ModeForces": dict.fromkeys(("growth", "view_var", "ratio", "repulsion"), spectrum),
        "ModeForces.at": {"self": forces, "variance": spectrum},
        "ModeForces.gain": {"self": forces, "variance": spectrum},
        "ModeForces.learning_times": {"self": forces, "start": spectrum},
        "Objective.check_start": network,
        "Objective.curvature": network,
        "Objective.embedding_gradients": {"self": objective, "z": z, "z_pos": z_pos},
        "Objective.embedding_loss": {"self": objective, "z": z, "z_pos": z_pos},
        "Objective.force": {"self": objective, "product": w1, "pairs": drawn},
        "Objective.gradient": network,
        "Objective.value": network,
        "PairMoments": {
            "view_cov": cov,
            "difference_cov": make(AUGMENTATION),
            "shared": cov,
            "means": [make([1, 2, 3])] * 2,
        },
        "PairMoments.within": {"self": moments, "frame": moved},
        "PairStream": {
            **{"task": task, "batch_size": 2, "runs": (), "pool": None, "device": torch.device("cpu")},
            "generator_state": make(list(range(5)), "uint8"),
        },
        "Pairs": {"anchor": z, "positive": z_pos},
        "RestModes": {
            **{"directions": cov, "growth": spectrum, "ratio": spectrum, "variance": spectrum},
            "room": torch.ones(3, dtype=torch.bool),
        },
        "SelfDistillation.check_start": {**state, "pairs": drawn},
        "SelfDistillation.gradient": {**state, "pairs": drawn},
        "SelfDistillation.moment_curvature": {**state, "moments": seen},
        "SelfDistillation.moment_gradient": {**state, "moments": seen},
        "SelfDistillation.moment_value": {**state, "moments": seen},
        "SelfDistillation.value": {**state, "pairs": drawn},
        "Trajectory": path,
        "alignment_bound": {"product_singular_values": spectrum, "imbalance_spectrum": spectrum, "blocks": blocks},
        "alignment_matrix": {"w1": w1, "w2": w2},
        "alignment_report": {"w1": w1, "w2": w2},
        "alignment_velocity": {"w1": w1, "w2": w2, "pull": moved},
        "balanced_predictor": {"weights": layers},
        "barlow": {"z": z, "z_pos": z_pos},
        "barlow_normalised": {"z": z, "z_pos": z_pos},
        "block_alignment": {"w1": w1, "w2": w2},
        "blockwise_covariance": {"x": z, "x_pos": z_pos, "z": z, "z_pos": z_pos},
        "byol_learning_times": {"rest": given.narrow, "start": spectrum},
        "contrastive_covariance": {"x": z, "x_pos": z_pos, "alpha": make(WEIGHTS), "negatives": z_pos},
        "dot_gradients": views,
        "dot_infonce": views,
        "effective_negatives": {"alpha": make(WEIGHTS)},
        "end_to_end": {"weights": layers},
        "excess_error": {"target": spectrum, "data_var": spectrum, "embedding_var": spectrum, "ridge": 1.0},
        "forward": {"weights": layers, "x": z, "biases": [make([1, 2, 3])] * 2},
        "frozen_flow": {**flow, "force": make([[-1, 0, 1], [0, -2, 0], [1, 0, -1]])},
        "imbalance": {"w1": w1, "w2": w2},
        "imbalance_drift": {"weights": [make([LOWER, MOVED]), make([UPPER, LOWER])]},
        "infonce": views,
        "infonce_gradients": views,
        "infonce_weights": views,
        "isotropic_rest_layers": {"imbalance_spectrum": spectrum, "product_value": 2.0},
        "layer_gradients": {"weights": layers, "product_gradient": moved},
        "layer_gradients_along": {
            **{"weights": layers, "directions": [w2, w1], "product_gradient": moved, "change": w1},
        },
        "layer_jacobian": {"weights": layers, "pulled": moved, "derivative": make(JACOBIAN)},
        "layer_values_at_rest": {"product": spectrum, "imbalance": make([1, 0, -1])},
        "layer_value_velocities": {"w1": w1, "w2": w2, "pull": moved},
        "judge": {"dimensions": given.dimensions, "rest": make([4, 4, 4])},
        "linear_dimensions": {"weights": layers, "task": task},
        "mode_dimensions": {"weights": layers, "task": given.isotropic_as_given},
        "mode_paths": {"forces": forces, "start": spectrum, "time": time},
        "mode_flow": {"layer_values": [spectrum, spectrum], "force": make([-1, -2, -3]), "time": time},
        "negatives_needed": population,
        "ntxent": {"z": z, "z_pos": z_pos},
        "ntxent_gradients": {"z": z, "z_pos": z_pos},
        "population_flow": {**flow, "task": isotropic, "weight_decay": 0.5},
        "population_force": population,
        "population_jacobian": population,
        "population_loss": population,
        "population_valid": {**population, "batch_size": 8},
        "predictor_imbalance": {"weights": layers, "predictor": moved},
        "probe_cost": {"data_var": spectrum, "embedding_var": spectrum, "ridge": 1.0},
        "protection_rate": {"growth": make([1, 0, -1]), "imbalance": spectrum},
        "relative_modes": {"data": cov, "augmentation": make(AUGMENTATION), "least": 1e-6},
        "rest_variance": {"ratio": make([0, 1, 2]), "signal": make([1, 1, 1]), "gap": make([1, 0, -1])},
        "riccati_gram": {"weight": w1, "task": isotropic, "time": 1.0, "loss": "spectral"},
        "sample_flow": {**flow, "pairs": drawn},
        "sampled_dimensions": {
            **{"weights": layers, "pairs": drawn, "activation": "relu", "biases": [make([1, 2, 3])] * 2},
        },
        "singular_value_velocities": {"w": w1, "w_dot": moved},
        "singular_values": {"matrix": w1},
        "singular_vector_velocities": {"w": w1, "w_dot": moved},
        "spectral": views,
        "spectral_gradients": views,
        "train": {"weights": layers, "pairs": drawn, "lr": 0.01, "steps": 2, "biases": [make([1, 2, 3])] * 2},
        "vcreg": {"z": z, "z_pos": z_pos, "invariance": 0.5},
        "vicreg": {"z": z, "z_pos": z_pos, "invariance": 0.5},
    }


def is_protocol(value):
    """Whether a class only says what its users are to write."""
    return getattr(value, "_is_protocol", False)


def public():
    """What takes tensors: public functions, and the records and methods of the wings below the simulation."""
    for name in dyncollapse.__all__:
        value = getattr(dyncollapse, name)
        wings = WINGS[:3] if inspect.isclass(value) else WINGS
        if callable(value) and inspect.unwrap(value).__module__.startswith(wings):
            own = vars(value).items() if inspect.isclass(value) and not is_protocol(value) else ()
            methods = {f"{name}.{m}": f for m, f in own if inspect.isfunction(f) and m[0] != "_"}
            for which, function in {name: value, **methods}.items():
                parameters = inspect.signature(function).parameters.values()
                if any("Tensor" in str(parameter.annotation) for parameter in parameters):
                    yield which, function


PUBLIC = dict(public())


def as_torch(values, kind="float64"):
    return torch.tensor(values, dtype=getattr(torch, kind))


def as_whole(values, kind="int64"):
    return torch.tensor(values, dtype=getattr(torch, kind))


def as_single(values, kind="float32"):
    return torch.tensor(values, dtype=getattr(torch, kind))


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


LAYOUTS = {
    "C": np.ascontiguousarray,
    "Fortran": np.asfortranarray,
    "reversed": lambda array: array[::-1].copy()[::-1],
    "read-only": read_only,
    "big-endian": lambda array: array.astype(array.dtype.newbyteorder(">")),
    "integers": lambda array: array.astype("i8" if array.dtype.kind == "f" else array.dtype),
    "single": lambda array: array.astype("f4" if array.dtype.kind == "f" else array.dtype),
    "lists": lambda array: array.tolist() if array.dtype.kind == "f" else array,
}


def same(a, b):
    """Equal types, shapes and bits, however deep; times of the clock aside."""
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    elif dataclasses.is_dataclass(a):
        for field in dataclasses.fields(a):
            same(getattr(a, field.name), getattr(b, field.name))
    elif isinstance(a, tuple | list):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            same(one, other)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a.keys() - {"seconds"}:
            same(a[key], b[key])
    else:
        assert a == b or isinstance(a, torch.Generator | torch.device | FunctionType)


def test_every_public_name_with_tensors_is_tried():
    assert PUBLIC.keys() == arguments(as_torch).keys()
    assert {"GaussianTask.augment", "Objective.value", "Objective.gradient"} <= PUBLIC.keys()


@pytest.mark.parametrize("name", PUBLIC)
def test_arrays_give_the_bits_of_tensors(name):
    function, of_tensors = PUBLIC[name], {}
    for layout, laid_out in LAYOUTS.items():
        tensors, dtype = (as_single, torch.float32) if layout == "single" else (as_torch, torch.float64)
        if layout == "integers" and name in AS_STORED:
            tensors = as_whole
        given = []

        def arrays(values, kind="float64", laid_out=laid_out, given=given):
            array = laid_out(np.array(values, kind))
            given.append((array, np.array(array)))
            return array

        if tensors not in of_tensors:
            of_tensors[tensors] = function(**arguments(tensors, dtype)[name])
        expected = of_tensors[tensors]
        same(expected, function(**arguments(arrays, dtype)[name]))
        call = inspect.signature(function).bind(**arguments(arrays, dtype)[name])
        same(expected, function(*call.args, **call.kwargs))
        assert all(np.array_equal(array, before) for array, before in given), layout


WRONG = {
    **{"text": "text", "None": None, "object": object(), "dict": {"w": 1}, "ragged": [[1, 2], [3]]},
    **{"truths": np.eye(3) > 0, "complex": 1j * np.eye(3), "masked": np.ma.masked_less(np.eye(3), 1)},
}


@pytest.mark.parametrize("name", PUBLIC)
def test_what_is_no_array_of_real_numbers_is_refused_in_one_line(name):
    function, known = PUBLIC[name], arguments(as_torch)[name]
    for parameter, (wrong, value) in itertools.product(inspect.signature(function).parameters.values(), WRONG.items()):
        annotation = str(parameter.annotation)
        listed = isinstance(known.get(parameter.name), list) and "Tensor" in annotation
        if "Tensor" not in annotation or (value is None and "None" in annotation) or (listed and wrong == "ragged"):
            continue
        for given in [value, [*known[parameter.name][:1], value]] if listed else [value]:
            with pytest.raises(ValueError, match=rf"^({parameter.name}|times are)") as caught:
                function(**known | {parameter.name: given})
            assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Pairs(torch.ones(3), torch.ones(3)), r"anchor has shape \(3,\); its axes are \(\*runs, n, d\)"),
        (lambda: dyncollapse.infonce(np.ones(3), np.ones(3)), r"z has shape \(3,\); its axes are \(\*runs, n, m\)"),
        (
            lambda: dyncollapse.end_to_end(np.ones((3, 2, 2))),
            "weights is one array; give a list of them, one per layer",
        ),
        (lambda: dyncollapse.end_to_end(torch.eye(3)), "weights is one array; give a list of them, one per layer"),
        (lambda: dyncollapse.end_to_end(3), "weights is of type int; give a list of arrays, one per layer"),
        (lambda: dyncollapse.end_to_end([np.eye(2), "x"]), r"weights\[1\] is str"),
    ],
)
def test_the_message_says_what_to_give(call, words):
    with pytest.raises(ValueError, match=f"^{words}"):
        call()


def test_a_constant_force_and_one_of_time_may_be_arrays():
    layers, force = [np.ones(2), np.ones(2)], np.array([-1.0, -2.0])
    same(
        dyncollapse.mode_flow(layers, force, np.array([0.0, 1.0])).product,
        dyncollapse.mode_flow(layers, lambda _t: force, [0.0, 1.0]).product,
    )


def test_tensors_are_passed_on_as_they_are():
    w = torch.eye(2, requires_grad=True)
    given = takes_arrays(lambda layers: layers)
    assert given(w) is w
    assert dyncollapse.end_to_end((w,)) is w
    parameter = torch.nn.Parameter(torch.eye(2))
    assert dyncollapse.end_to_end([parameter]) is parameter
    pair = Pairs(w, w)
    assert pair.anchor is w


def test_a_record_keeps_no_memory_of_the_caller():
    cov = np.eye(2)
    task = GaussianTask(cov, cov)
    cov[0, 0] = 5.0
    assert task.data_cov.tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_large_arrays_are_not_copied():
    x = np.arange(12.0).reshape(4, 3)
    x.flags.writeable = False
    seen = []

    @takes_arrays
    def look(x: Real[Tensor, "n d"]) -> None:
        seen.append(x.data_ptr())

    look(x)
    assert seen == [x.__array_interface__["data"][0]]


def test_public_functions_are_pickled_and_signed_as_before():
    for name in ("train", "end_to_end", "infonce", "collapse_threshold"):
        function = getattr(dyncollapse, name)
        assert pickle.loads(pickle.dumps(function)) is function
        assert function.__name__ == name
        assert inspect.signature(function) == inspect.signature(inspect.unwrap(function))


@pytest.mark.slow
def test_names_that_are_imported_at_once_take_arrays_too():
    code = "import numpy as np, dyncollapse; print(dyncollapse.singular_values(np.eye(2)).tolist())"
    environment = {**os.environ, "EAGER_IMPORT": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "[1.0, 1.0]\n"


@pytest.mark.parametrize("call", [lambda s: dyncollapse.rest_gram(s), lambda s: dyncollapse.modes(task=s)])
def test_covariance_in_place_of_a_task_is_refused_in_one_line(call):
    with pytest.raises(ValueError, match="task is an array; give a GaussianTask, which is made of two covariances"):
        call(np.eye(3))
