import json
import os

import numpy as np
import pytest
import torch
from helpers.hostile_files import FILES
from helpers.reference import normal

from dyncollapse import Interrupted, Trajectory, imbalance_drift
from dyncollapse.runtime.files import CannotWrite


def record(generator, biases=True):
    weights = (normal(generator, 4, 2, 3, 5), normal(generator, 4, 2, 2, 3))
    shifts = (normal(generator, 4, 2, 3), normal(generator, 4, 2, 2)) if biases else ()
    meta = {"dynamics": "sgd", "lr": 0.1, "rest_time": None, "shape": [1, 2], "name": "größe"}
    return Trajectory(torch.linspace(0, 3, 4, dtype=torch.float64), weights, normal(generator, 4, 2), shifts, meta)


def test_derived_quantities_follow_from_the_weights(generator):
    path = record(generator)
    for t in range(4):
        for run in range(2):
            product = path.weights[1][t, run] @ path.weights[0][t, run]
            torch.testing.assert_close(path.product[t, run], product, rtol=1e-12, atol=1e-13)
            torch.testing.assert_close(path.singular_values[t, run], torch.linalg.svdvals(product))
    assert path.imbalance_drift == imbalance_drift(path.weights)
    assert path.imbalance_drift > 0.01
    assert all(torch.equal(w, path.weights[i][3]) for i, w in enumerate(path.final()))


@pytest.mark.parametrize("biases", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_saved_and_loaded_is_the_same_to_the_bit(dtype, biases, generator, tmp_path):
    path = record(generator, biases)
    layers, shifts = (tuple(p.to(dtype) for p in parameters) for parameters in (path.weights, path.biases))
    path = Trajectory(path.time, layers, path.loss, shifts, path.meta)
    path.save(tmp_path / "a.npz")
    again = Trajectory.load(tmp_path / "a.npz")
    pairs = zip(
        (again.time, again.loss, *again.weights, *again.biases),
        (path.time, path.loss, *path.weights, *path.biases),
        strict=True,
    )
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in pairs)
    assert (len(again.weights), len(again.biases)) == (2, 2 if biases else 0)
    assert again.meta == path.meta


def test_more_than_nine_layers_keep_their_order(tmp_path):
    weights = tuple(torch.full((2, 1, 1), float(i)) for i in range(12))
    Trajectory(torch.arange(2.0), weights, torch.zeros(2)).save(tmp_path / "deep.npz")
    assert [float(w[0]) for w in Trajectory.load(tmp_path / "deep.npz").weights] == list(range(12))


def test_saving_leaves_one_file_and_replaces_the_old(generator, tmp_path):
    record(generator, False).save(tmp_path / "a.npz")
    newer = record(generator)
    newer.save(str(tmp_path / "a.npz"))
    assert [file.name for file in tmp_path.iterdir()] == ["a.npz"]
    assert torch.equal(Trajectory.load(str(tmp_path / "a.npz")).loss, newer.loss)


def test_a_failed_save_keeps_the_old_file_and_leaves_no_partial(generator, tmp_path):
    path = record(generator)
    path.save(tmp_path / "a.npz")
    broken = Trajectory(path.time, path.weights, path.loss, meta={"made by": object()})
    with pytest.raises(TypeError, match="not JSON serializable"):
        broken.save(tmp_path / "a.npz")
    assert torch.equal(Trajectory.load(tmp_path / "a.npz").loss, path.loss)
    assert [file.name for file in tmp_path.iterdir()] == ["a.npz"]


def garbage(kind, file, good):
    if kind == "noise":
        file.write_bytes(bytes(range(256)))
    elif kind == "empty":
        file.write_bytes(b"")
    elif kind == "pickle":
        np.savez(file, time=np.array([{"a": 1}], dtype=object), meta=np.array("{}"))
    elif kind == "pickled meta":
        np.savez(file, time=np.zeros(1), loss=np.zeros(1), meta=np.array({"a": 1}, dtype=object))
    elif kind == "single array":
        with file.open("wb") as stream:
            np.save(stream, np.zeros((3, 3)))
    elif kind == "other names":
        np.savez(file, embedding=np.zeros((3, 3)))
    elif kind == "no time":
        np.savez(file, loss=np.zeros(1), weight_1=np.zeros((1, 2, 2)), meta=np.array("{}"))
    elif kind == "no weights":
        np.savez(file, time=np.zeros(1), loss=np.zeros(1), meta=np.array("{}"))
    elif kind == "missing layer":
        np.savez(file, time=np.zeros(1), loss=np.zeros(1), weight_2=np.zeros((1, 2, 2)), meta=np.array("{}"))
    elif kind == "words":
        np.savez(file, time=np.array(["a"]), loss=np.zeros(1), meta=np.array("{}"))
    elif kind == "broken meta":
        np.savez(file, time=np.zeros(1), loss=np.zeros(1), weight_1=np.zeros((1, 2, 2)), meta=np.array("{"))
    elif kind == "truncated":
        file.write_bytes(good[: len(good) // 2])
    else:
        damaged = bytearray(good)
        damaged[good.index(b"weight_1.npy") + 300] ^= 255
        file.write_bytes(bytes(damaged))


@pytest.mark.parametrize(
    "kind",
    [
        "noise",
        "empty",
        "pickle",
        "pickled meta",
        "single array",
        "other names",
        "no time",
        "no weights",
        "missing layer",
        "words",
        "broken meta",
        "truncated",
        "flipped bits",
    ],
)
def test_what_is_no_trajectory_is_refused(kind, tmp_path):
    record(torch.Generator().manual_seed(0)).save(tmp_path / "good.npz")
    file = tmp_path / "bad.npz"
    garbage(kind, file, (tmp_path / "good.npz").read_bytes())
    with pytest.raises(ValueError, match=r"bad\.npz is not a saved trajectory"):
        Trajectory.load(file)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.npz"):
        Trajectory.load(tmp_path / "nowhere.npz")
    with pytest.raises(CannotWrite, match="nowhere"):
        record(torch.Generator().manual_seed(0)).save(tmp_path / "nowhere" / "a.npz")


def test_meta_is_stored_as_text_not_as_a_pickle(generator, tmp_path):
    record(generator).save(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        assert json.loads(str(file["meta"]))["lr"] == 0.1


def test_interruption_says_when(generator):
    path = record(generator)
    assert str(Interrupted(path)) == "interrupted at t = 3"
    assert Interrupted(path).trajectory is path
    assert issubclass(Interrupted, KeyboardInterrupt)
    assert str(Interrupted(Trajectory(torch.empty(0), (), torch.empty(0)))) == "interrupted"


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".npz")])
def test_hostile_files_are_no_trajectory(tmp_path, name):
    FILES[name](tmp_path / name)
    with pytest.raises(ValueError, match=r"\.npz is not a saved trajectory"):
        Trajectory.load(tmp_path / name)


def test_a_pipe_is_no_trajectory(tmp_path):
    os.mkfifo(tmp_path / "x.npz")
    with pytest.raises(ValueError, match="it is a pipe, not a regular file"):
        Trajectory.load(tmp_path / "x.npz")
