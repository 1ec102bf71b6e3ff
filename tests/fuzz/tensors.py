"""Arrays and tensors that are not what they should be, and files that hold them."""

import io
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fuzz.values import VALUES, nodes


def _repeated(count: int) -> list[Any]:
    level: Any = []
    for _ in range(count):
        level = [level]
    return list(level)


def _shared(levels: int) -> dict[str, Any]:
    level: dict[str, Any] = {"w": torch.zeros(1)}
    for _ in range(levels):
        level = {"x": level, "y": level}
    return level


def _cyclic() -> dict[str, Any]:
    loop: dict[str, Any] = {"a": torch.zeros(1)}
    loop["self"] = loop
    return loop


def _nested(levels: int) -> dict[str, Any]:
    level: dict[str, Any] = {"w": torch.zeros(2, 2)}
    for _ in range(levels):
        level = {"x": level}
    return level


# What may stand where a tensor should, made from the one that stood there.
ODD: dict[str, Callable[[Tensor], Any]] = {
    "nan": lambda t: torch.full_like(t, float("nan")) if t.is_floating_point() else t,
    "inf": lambda t: torch.full_like(t, float("inf")) if t.is_floating_point() else t,
    "large": lambda t: torch.full_like(t, 3e38) if t.is_floating_point() else t,
    "tiny": lambda t: t * 1e-40 if t.is_floating_point() else t,
    "zeros": torch.zeros_like,
    "sparse": lambda t: t.to_sparse(),
    "csr": lambda t: torch.ones(3, 3).to_sparse_csr(),  # noqa: ARG005
    "meta": lambda t: t.to("meta"),
    "quantised": lambda t: torch.quantize_per_tensor(t.float(), 0.1, 0, torch.qint8),
    "half": lambda t: t.half(),
    "bfloat16": lambda t: t.bfloat16(),
    "double": lambda t: t.double(),
    "float8": lambda t: t.to(torch.float8_e4m3fn),
    "complex": lambda t: t.to(torch.complex64),
    "bool": lambda t: t.bool(),
    "int8": lambda t: t.to(torch.int8),
    "int64": lambda t: t.to(torch.int64),
    "uint32": lambda t: t.to(torch.int64).abs().to(torch.uint32),
    "scalar": lambda t: torch.tensor(1.0),  # noqa: ARG005
    "none": lambda t: t[:0] if t.ndim else t,
    "flat": lambda t: t.flatten(),
    "one": lambda t: t[:1] if t.ndim else t,
    "more": lambda t: t.unsqueeze(0),
    "six": lambda t: t.reshape(1, 1, 1, 1, 1, 1, -1),
    "transposed": lambda t: t.transpose(0, -1) if t.ndim else t,
    "wide": lambda t: torch.zeros(2, 3000),  # noqa: ARG005
    "stride": lambda t: torch.zeros(1).as_strided((10**12, 4), (0, 0)),  # noqa: ARG005
    "stride4": lambda t: torch.zeros(1).as_strided((10**9, 3, 3, 3), (0, 0, 0, 0)),  # noqa: ARG005
    "view": lambda t: torch.zeros(1).expand(t.shape),
    "numpy": lambda t: t.numpy(),
    "parameter": lambda t: torch.nn.Parameter(t) if t.is_floating_point() else t,
    "nestedtensor": lambda t: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),  # noqa: ARG005
    "deep": lambda t: _repeated(400),  # noqa: ARG005
    "shared": lambda t: _shared(45),  # noqa: ARG005
    "cyclic": lambda t: _cyclic(),  # noqa: ARG005
    "nested": lambda t: _nested(300),  # noqa: ARG005
    "module": lambda t: torch.nn.Linear(2, 2),  # noqa: ARG005
    "set": lambda t: {1, 2},  # noqa: ARG005
    "dtype": lambda t: t.dtype,
    "ordered": lambda t: OrderedDict(a=t),
}
NAMES = (
    *(
        "projector.999999999.weight",
        "projector.-1.weight",
        "projector.0.weight",
        "projector.1e9.bias",
        "",
        ".",
        "weight",
    ),
    *(
        "backbone._orig_mod.conv1.weight",
        "_fsdp_wrapped_module.x",
        "\x1b[31mred",
        "a\nb",
        "é" * 50,
        "x." * 2000,
        "0.0.0",
    ),
    *(
        "backbone.conv1.weight",
        "backbone",
        "projector",
        "module.module.module.conv1.weight",
        "head.weight",
        "fc.weight",
    ),
    *(
        "classifier.weight",
        "projector.٣.weight",
        "projector.1.running_mean",
        "format",
        "step",
        "recipe",
        "model",
        "channels",
    ),
)
KEYS: dict[str, Any] = {"#int": 1, "#none": None, "#pair": (1, 2), "#float": 1.5, "#bool": True, "#bytes": b"a"}
# What a change puts where, by name.
NEW: dict[str, tuple[str, ...]] = {
    "odd": tuple(ODD),
    "add": tuple(ODD),
    "root": tuple(ODD),
    "value": tuple(VALUES),
    "name": NAMES,
    "rename": (*NAMES, *KEYS),
    "wrap": NAMES,
    "delete": ("",),
}
CHANGES = ("odd", "odd", "odd", "value", "value", "name", "rename", "add", "wrap", "root", "delete")


def read_tree(path: Path) -> Any:
    """What one of our own files holds."""
    if path.suffix == ".safetensors":
        return load_file(path)
    return torch.load(path, weights_only=False)


def write_tree(path: Path, tree: Any) -> None:
    """Save it as the suffix says; what safetensors cannot hold stays out."""
    if path.suffix == ".safetensors":
        held = {str(k): v.contiguous().clone() for k, v in tree.items() if _plain(v)} if isinstance(tree, dict) else {}
        save_file(held, path)
    else:
        torch.save(tree, path)


def _plain(value: Any) -> bool:
    strided = isinstance(value, Tensor) and value.layout == torch.strided and not value.is_nested
    return strided and not value.is_meta and not value.is_quantized and _small(value)


def _small(tensor: Tensor) -> bool:
    """Whether a copy of a tensor is small: an earlier step may have made one number look like 10^12."""
    return tensor.numel() < 1_000_000


def change_tensors(path: Path, part: float, action: str, new: str) -> None:
    """One place of a file's tree changed: `part` of the way through its tensors and values."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = read_tree(path)
            write_tree(path, _changed(tree, part, action, new))
    except (FileNotFoundError, IsADirectoryError, MemoryError):
        raise
    except Exception:  # an earlier step broke it, or torch does not save such a thing
        return


def _changed(tree: Any, part: float, action: str, new: str) -> Any:
    places = [pair for pair in nodes(tree) if not isinstance(pair[0], list)]
    tensors = [(holder, key) for holder, key in places if isinstance(holder[key], Tensor) and _small(holder[key])]
    if action == "root" or not places:
        return ODD.get(new, torch.clone)(torch.zeros(2, 2))
    if action == "wrap":
        return {new: tree}
    if action in ("odd", "add") and tensors:
        holder, key = tensors[int(part * len(tensors))]
        name = key if action == "odd" else f"{key}.{new}"
        holder[name] = ODD[new](holder[key])
        return tree
    holder, key = places[int(part * len(places))]
    if action == "value":
        holder[key] = VALUES[new]
    elif action == "name":
        holder[new] = torch.zeros(4, 4)
    elif action == "rename":
        holder[KEYS.get(new, new)] = holder.pop(key)
    else:
        del holder[key]
    return tree


def _odd_arrays() -> dict[str, Callable[[np.random.Generator], Any]]:
    kinds = ("f2", "f8", ">f4", "i8", "u1", "?", "c16", "g", "M8[s]", "m8[D]", "U5", "S3", "V7")
    found: dict[str, Callable[[np.random.Generator], Any]] = {
        kind: lambda rng, kind=kind: (
            (rng.standard_normal((24, 6)) * 3).astype("i8").astype(kind) if kind != "V7" else np.zeros((24, 6), "V7")
        )
        for kind in kinds
    }
    shapes = (
        (),
        (1,),
        (24,),
        (0, 6),
        (24, 0),
        (1, 6),
        (2, 6),
        (24, 1),
        (1, 1),
        (24, 6, 1),
        (23, 6),
        (24, 5),
        (2, 4000),
    )
    found |= {f"shape{shape}": lambda rng, shape=shape: rng.standard_normal(shape) for shape in shapes}
    values = (0.0, float("nan"), float("inf"), 1e300, 1e-310, 3e38, 1.0, -0.0)
    found |= {f"all{value}": lambda _rng, value=value: np.full((24, 6), value) for value in values}
    found |= {f"one{value}": lambda rng, value=value: _with(rng, value) for value in values[1:6]}
    found["object"] = lambda _rng: np.array([{}, [], None], dtype=object)
    found["fields"] = lambda _rng: np.zeros((4, 2), [("a", "f4"), ("b", "i4")])
    found["fortran"] = lambda rng: np.asfortranarray(rng.standard_normal((24, 6)))
    found["integers"] = lambda _rng: np.full((24, 6), 2**63 - 1, dtype="i8")
    found["same"] = lambda rng: np.repeat(rng.standard_normal((1, 6)), 24, 0)
    found["mixed"] = lambda rng: rng.standard_normal((24, 6)) * [1e-200, 1e-100, 1, 1, 1e100, 1e200]
    found["tall"] = lambda rng: rng.standard_normal((20_000, 3))
    return found


def _with(rng: np.random.Generator, value: float) -> Any:
    array = rng.standard_normal((24, 6))
    array[3, 2] = value
    return array


ARRAYS = _odd_arrays()
MEMBERS = ("z", "", "../z", "/z", "\x1b[31mz", "a\nb", "z/z", "é", "x" * 2000, "z.npy", "weight", "data.pkl")


def save_array(path: Path, name: str, member: str, packed: str) -> None:
    """An odd array in place of a file, in that file's format; in a .npz under a name, packed oddly."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array = ARRAYS[name](np.random.default_rng(0))
        if path.suffix == ".npy":
            np.save(path, array)
        elif path.suffix == ".npz":
            _zip(path, array, member, packed)
        else:
            try:
                write_tree(path, {member: torch.from_numpy(array)})
            except (KeyError, TypeError, ValueError, RuntimeError):  # no tensor can be so
                return


def _zip(path: Path, array: Any, member: str, packed: str) -> None:
    held = io.BytesIO()
    np.save(held, array)
    content = held.getvalue()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if packed == "bomb" else zipfile.ZIP_STORED) as archive:
        if packed == "bomb":  # small in the file, and two gigabytes of zeros out of it
            header = io.BytesIO()
            np.lib.format.write_array_header_2_0(
                header, {"descr": "<f4", "fortran_order": False, "shape": (2**17, 2**12)}
            )
            with archive.open(f"{member}.npy", "w", force_zip64=True) as file:
                file.write(header.getvalue())
                for _ in range(2**9):
                    file.write(bytes(2**22))
        else:
            archive.writestr(f"{member}.npy", content)
        if packed == "twice":
            archive.writestr(f"{member}.npy", content)
        if packed == "two":
            archive.writestr("other.npy", content)
