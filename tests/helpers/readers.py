"""Files of embeddings to read, and how they are refused."""

import re
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dyncollapse.diagnostics.readers import read_rows

SUFFIXES = (".npy", ".npz", ".pt", ".pth", ".safetensors")
ROWS = torch.arange(15.0).reshape(5, 3)


def save(path, rows, name="z"):
    """`rows` in the format that the suffix of `path` names; containers hold it as `name`."""
    if path.suffix == ".npy":
        np.save(path, rows.numpy())
    elif path.suffix == ".npz":
        np.savez(path, **{name: rows.numpy()})
    elif path.suffix == ".safetensors":
        save_file({name: rows}, path)
    else:
        torch.save(rows, path)
    return path


def refusal(path, key=None):
    """The message of a refused file, which is one line that starts with its path."""
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))} ") as caught:
        read_rows(path, key)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert message.isprintable()
    return message


def rewrite_pt(path, change, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    path.unlink()  # to overwrite it may wait for the disk
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, change(data) if name.endswith("data.pkl") else data)
