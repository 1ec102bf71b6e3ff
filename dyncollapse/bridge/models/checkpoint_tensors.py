"""The tensors of any library's checkpoint by name, each checked before it is used."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from dyncollapse.formats.arrays import SAFETENSORS_KINDS, read_safetensors
from dyncollapse.formats.pickles import UnknownName
from dyncollapse.formats.torch_files import read_pt
from dyncollapse.formats.torch_names import Described
from dyncollapse.runtime.files import printable, unmarked
from dyncollapse.runtime.settings import SettingError
from dyncollapse.runtime.untrusted import NoFile, Refused, regular

# A checkpoint of a large model with its optimiser has ten thousand entries and names of a hundred letters.
MOST_ENTRIES, DEEPEST, LONGEST = 2**15, 64, 1000
# A tensor may have several names, such as a teacher that shares its student's weights.
MOST_COPIES, FREE = 8, 2**27


def read_tensors(path: Path, *, trust: bool = False) -> object:
    """Read a checkpoint and check all its tensors.

    Args:
        path: A .safetensors file, or one that torch.save wrote.
        trust: Whether to unpickle the file, which may run any code in it.

    Returns:
        Tensors by name, or nested dicts that hold them (see `flatten`). Without `trust` nothing is unpickled: the file
        may hold dicts, lists, tuples, numbers, strings and tensors.

    Raises:
        SettingError: If the file needs `trust`. One line that begins with the path.
        ValueError: If the file is damaged or missing. One line that begins with the path.
    """
    shown = unmarked(str(path))
    try:
        content = _content(path, trust)
        flatten(content)
    except FileNotFoundError:
        raise ValueError(
            f"{shown} does not exist; give a checkpoint, the folder of a run, or timm/NAME or hf-hub:ORG/NAME"
        ) from None
    except OSError as error:
        raise ValueError(f"{shown} cannot be read ({error.strerror})") from None
    except NoFile as error:
        raise ValueError(f"{shown} cannot be read: {error}") from None
    except UnknownName as error:
        raise SettingError(
            f"{shown} holds {unmarked(error.name)}, which is not loaded from an untrusted file; save its state_dict "
            "alone or, if you trust its author to run code on this machine, add `trust`"
        ) from None
    except Refused as refusal:
        raise ValueError(f"{shown} {refusal}") from None
    except Exception as error:  # a damaged file can fail in any way
        if trust and isinstance(error, ImportError | AttributeError):
            raise ValueError(f"{shown} {_what_is_not_here(error)}") from None
        raise ValueError(
            f"{shown} is no checkpoint, or is damaged ({type(error).__name__}); give a file of torch.save or "
            ".safetensors, or copy it again"
        ) from None
    return content


def _content(path: Path, trust: bool) -> object:
    regular(path)
    if path.suffix == ".safetensors":
        arrays = read_safetensors(path, mapped=False)
        known = SAFETENSORS_KINDS.values()
        return {
            name: array.load() if array.kind in known else Described(array.kind, array.shape or ())
            for name, array in arrays.items()
        }
    if trust:
        unpickled: object = torch.load(path, map_location="cpu", weights_only=False)
        return unpickled
    content: object = read_pt(path, mapped=False)
    return content


def _what_is_not_here(error: ImportError | AttributeError) -> str:
    """Say which module or class a file needs."""
    lacking = re.search(r"attribute '?([\w.]+)'? (?:on|from) <?(?:module )?'?([\w.]+)", str(error))
    what = str(error)
    if isinstance(error, ImportError) and error.name:
        what = f"the module {error.name}"
    elif lacking and lacking[2].endswith("__main__"):
        what = f"the class {lacking[1]} of the script that saved it"
    elif lacking:
        what = f"the class {lacking[1]} of the module {lacking[2]}"
    return (
        f"needs code that is not installed: {printable(what)}; where it is installed, save the state_dict alone, which "
        "needs no code: torch.save(model.state_dict(), FILE)"
    )


def flatten(content: object) -> Sequence[tuple[str, Tensor]]:
    """List all tensors in nested dicts by their path, such as `model.module.conv1.weight`.

    Args:
        content: A tensor, a dict or, from a trusted file, a module.

    Returns:
        Names and tensors, in the order of the file.

    Raises:
        Refused: A ValueError, for a tensor that is not dense, for dicts that are nested too deeply or hold themselves,
            for two tensors of one name, and for a few numbers under so many names that a network made of them takes
            gigabytes.

    Examples:
        >>> [(name, tuple(tensor.shape)) for name, tensor in flatten({"model": {"fc.weight": torch.ones(2, 3)}})]
        [('model.fc.weight', (2, 3))]
    """
    tensors, entries = [], 0
    waiting = [("", 0, content)]
    while waiting:
        name, depth, value = waiting.pop()
        if isinstance(value, nn.Module):  # modules and arrays come from trusted files only
            value = value.state_dict()
        elif isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
            value = torch.from_numpy(value)
        if isinstance(value, Tensor | Described):
            tensors.append((name, _dense(name, value)))
        elif isinstance(value, Mapping):
            if depth == DEEPEST:
                raise Refused(f"holds dicts {DEEPEST} deep, or a dict that holds itself; save its state_dict alone")
            entries += len(value)
            if entries > MOST_ENTRIES:
                raise Refused(f"holds over {MOST_ENTRIES} entries, or dicts that hold each other; save one state_dict")
            parts = [(f"{name}.{key}" if name else str(key), depth + 1, part) for key, part in value.items()]
            if longest := next((part for part, _, _ in parts if len(part) > LONGEST), None):
                raise Refused(f"holds a name of {len(longest)} letters; save its state_dict alone")
            waiting += reversed(parts)
    counts = Counter(name for name, _ in tensors)
    if twice := next((name for name, count in counts.items() if count > 1), None):
        raise Refused(f"holds two tensors under one name, {printable(twice)}; save its state_dict alone")
    _refuse_copies(tensors)
    return tensors


def _refuse_copies(tensors: Sequence[tuple[str, Tensor]]) -> None:
    """Refuse a small file whose tensors share storage under so many names that a network of them takes gigabytes."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for _, tensor in tensors}
    stored, named = sum(storages.values()), sum(tensor.numel() * tensor.itemsize for _, tensor in tensors)
    if named > MOST_COPIES * stored + FREE:
        raise Refused(f"holds {stored} bytes of numbers under names that take {named}; save every tensor once")


def _dense(name: str, tensor: Tensor | Described) -> Tensor:
    if isinstance(tensor, Described):
        kind = tensor.kind
    elif tensor.layout == torch.strided and not (tensor.is_meta or tensor.is_nested or tensor.is_quantized):
        return tensor
    else:
        kind = "meta" if tensor.is_meta else "nested" if tensor.is_nested else str(tensor.layout)
    raise Refused(f"holds {printable(name)} as a {kind} tensor; save dense tensors of plain numbers")
