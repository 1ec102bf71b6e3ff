"""Files of torch.save come back as they were saved, without unpickling."""

import argparse
import collections
import io
import pickle
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dyncollapse.formats.pickles import Call, Opaque, UnknownName, read_pickle
from dyncollapse.formats.torch_files import read_pt
from dyncollapse.formats.torch_names import Described

FORMATS = ({}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}, {"pickle_protocol": 5})
DTYPES = ("float16", "bfloat16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32")
DTYPES += ("uint64", "bool", "complex64", "complex128", "float8_e4m3fn", "float8_e5m2")


def alike(found, saved):
    """Whether what was read is what was saved: type by type, bit by bit, stride by stride."""
    if isinstance(saved, torch.Tensor):
        same = (found.dtype, found.shape) == (saved.dtype, saved.shape)
        same = same and (not saved.numel() or found.stride() == saved.stride())
        raw = [tensor.detach().clone(memory_format=torch.contiguous_format).flatten() for tensor in (found, saved)]
        return type(found) is torch.Tensor and same and torch.equal(*(tensor.view(torch.uint8) for tensor in raw))
    if isinstance(saved, dict):
        return type(found) is dict and list(found) == list(saved) and all(alike(found[k], saved[k]) for k in saved)
    if isinstance(saved, list | tuple):
        return type(found) is type(saved) and len(found) == len(saved) and all(map(alike, found, saved))
    return type(found) is type(saved) and (found == saved or (found != found and saved != saved))


@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("how", FORMATS, ids=lambda how: next(iter(how), "zip"))
def test_everything_that_stands_beside_tensors(tmp_path, how, mapped):
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimiser = torch.optim.Adam(network.parameters())
    network(torch.randn(5, 3)).sum().backward()
    optimiser.step()
    base = torch.arange(30.0)
    content = {
        "network": network.state_dict(),
        "optimiser": optimiser.state_dict(),
        "strided": base.view(5, 6).T[1:, ::2],
        "expanded": torch.ones(1, 3).expand(5, 3),
        "shared": [base, base[3:7], base],
        "scalar": torch.tensor(3.0),
        "empty": torch.empty(0, 3),
        "learns": torch.ones(2, requires_grad=True),
        "plain": (1, 2.5, "ä", None, True, b"ab", 10**30, -1, 1j, float("inf")),
        "counts": collections.Counter("aab"),
        "torch": [torch.Size([1, 2]), torch.float32],
        1: {2.5: {None: 3}},
    }
    torch.save(content, tmp_path / "x.pt", **how)
    found = read_pt(tmp_path / "x.pt", mapped=mapped)
    content["torch"][0] = (1, 2)
    content["counts"] = dict(content["counts"])
    assert alike(found, content)
    assert found["shared"][0].data_ptr() == found["shared"][1].data_ptr() - 3 * 4


@pytest.mark.parametrize("how", FORMATS, ids=lambda how: next(iter(how), "zip"))
def test_what_is_no_dense_tensor_is_described(tmp_path, how):
    ones = torch.ones(3, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # prototypes and deprecations of torch
        content = {
            "sparse_coo float32": ones.to_sparse(),
            "sparse_csr float32": ones.to_sparse_csr(),
            "sparse_csc float32": ones.to_sparse_csc(),
            "qint8": torch.quantize_per_tensor(ones, 0.1, 0, torch.qint8),
            "meta float32": ones.to("meta"),
            "complex64 with a conjugation or sign to be applied": ones.cfloat().conj(),
        }
        torch.save(content, tmp_path / "x.pt", **how)
    for kind, found in read_pt(tmp_path / "x.pt", mapped=True).items():
        assert found == Described(kind, (3, 2))


def test_options_and_numbers_of_numpy_are_known_by_name_alone(tmp_path):
    torch.save({"args": argparse.Namespace(lr=1), "score": np.float64(3), "z": torch.ones(2)}, tmp_path / "x.pt")
    found = read_pt(tmp_path / "x.pt", mapped=False)
    assert isinstance(found["args"], Opaque)
    assert isinstance(found["score"], Opaque)
    assert torch.equal(found["z"], torch.ones(2))


def test_a_tensor_with_attributes_is_the_tensor(tmp_path):
    tensor = torch.ones(2)
    tensor.detach_ = "a name of torch's own"
    torch.save({"z": tensor}, tmp_path / "x.pt")
    assert alike(read_pt(tmp_path / "x.pt", mapped=True)["z"], torch.ones(2))


@given(
    dtype=st.sampled_from(DTYPES),
    shape=st.lists(st.integers(0, 4), max_size=3),
    how=st.sampled_from(FORMATS),
    mapped=st.booleans(),
    data=st.data(),
)
@settings(max_examples=150)
def test_tensors_of_every_dtype_and_layout(tmp_path_factory, dtype, shape, how, mapped, data):
    dtype = getattr(torch, dtype)
    count = max(1, int(np.prod(shape))) * dtype.itemsize
    raw = np.random.default_rng(count).integers(0, 2 if dtype == torch.bool else 256, 2 * count, np.uint8)
    base = torch.from_numpy(raw).view(dtype)
    strides = data.draw(st.lists(st.integers(0, 3), min_size=len(shape), max_size=len(shape)))
    reach = sum((n - 1) * step for n, step in zip(shape, strides, strict=True) if n)
    if reach < len(base):
        offset = data.draw(st.integers(0, len(base) - reach - 1))
        base = torch.as_strided(base, shape, strides, offset)
    path = tmp_path_factory.getbasetemp() / "any.pt"
    torch.save([base], path, **how)
    assert alike(read_pt(path, mapped=mapped), [base])


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(-99, 99), inner),
    max_leaves=20,
)


@given(content=PLAIN, protocol=st.integers(0, 5))
@settings(max_examples=200)
def test_plain_values_of_every_protocol(content, protocol):
    encode = {"_codecs.encode": Call(lambda text, encoding: text.encode(encoding)), "__builtin__.bytes": Call(bytes)}
    encode |= {"builtins.bytes": Call(bytes)}
    file = io.BytesIO(pickle.dumps(content, protocol) + b"more")
    assert alike(read_pickle(file, encode, id), content)
    assert file.read() == b"more"


def test_a_pickle_may_hold_itself():
    loop = [1]
    loop.append(loop)
    found = read_pickle(io.BytesIO(pickle.dumps(loop)), {}, id)
    assert found[1] is found


@pytest.mark.parametrize("protocol", range(6))
def test_names_that_are_not_allowed_are_named(protocol):
    with pytest.raises(UnknownName, match=r"^holds \S*, which is never loaded") as caught:
        read_pickle(io.BytesIO(pickle.dumps(argparse.Namespace(), protocol)), {"os.mkdir": Opaque("x")}, id)
    assert caught.value.name in ("argparse.Namespace", "copy_reg._reconstructor", "copyreg._reconstructor")
