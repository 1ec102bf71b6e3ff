import warnings
from collections import OrderedDict

import numpy as np
import pytest
import torch
from helpers.readers import ROWS, refusal, save
from safetensors.torch import save_file

from dyncollapse.diagnostics.readers import read_rows
from dyncollapse.runtime.settings import SettingError

# ------------------------------------------------------------------------------------------------- which array is meant


def save_many(path, arrays):
    if path.suffix == ".npz":
        np.savez(path, **{name: array.numpy() for name, array in arrays.items()})
    elif path.suffix == ".safetensors":
        save_file(arrays, path)
    else:
        torch.save(arrays, path)
    return path


CONTAINERS = pytest.mark.parametrize("suffix", [".npz", ".pt", ".safetensors"])


@CONTAINERS
def test_the_one_floating_matrix_is_found(tmp_path, suffix):
    arrays = {"labels": torch.arange(5), "pairs": torch.zeros(5, 2, dtype=torch.int64), "z": ROWS}
    assert torch.equal(read_rows(save_many(tmp_path / f"rows{suffix}", arrays)), ROWS)


@CONTAINERS
def test_key_chooses_any_array(tmp_path, suffix):
    arrays = {"a": ROWS, "b": ROWS + 1, "c": torch.ones(2, 2, dtype=torch.int32)}
    path = save_many(tmp_path / f"rows{suffix}", arrays)
    for key, array in arrays.items():
        assert torch.equal(read_rows(path, key), array)


@CONTAINERS
def test_several_arrays_are_listed(tmp_path, suffix):
    path = save_many(tmp_path / f"rows{suffix}", {f"k{i:02}": ROWS + i for i in range(11)})
    message = refusal(path)
    assert "has 11 two-dimensional floating arrays: k00 (5, 3) float32, k01 (5, 3) float32" in message
    assert "k07 (5, 3) float32 and 3 more; choose one with key NAME" in message
    assert "k08" not in message


@CONTAINERS
def test_unknown_key_is_told_what_there_is(tmp_path, suffix):
    path = save_many(tmp_path / f"rows{suffix}", {"a": ROWS, "b": ROWS + 1})
    assert "has no array named c; it has a (5, 3) float32, b (5, 3) float32" in refusal(path, "c")


@CONTAINERS
def test_no_matrix_among_several_and_a_wrong_only_array(tmp_path, suffix):
    few = {"labels": torch.arange(5), "images": torch.zeros(2, 3, 4)}
    message = refusal(save_many(tmp_path / f"few{suffix}", few))
    assert "has no two-dimensional floating arrays: " in message
    assert "images (2, 3, 4) float32" in message
    assert "labels (5,) int64" in message
    path = save_many(tmp_path / f"one{suffix}", {"images": torch.zeros(2, 3, 4)})
    assert "array images has shape (2, 3, 4), as tokens of images have; " in refusal(path)


@pytest.mark.parametrize("suffix", [".npy", ".pt"])
def test_key_of_a_single_array_is_refused(tmp_path, suffix):
    assert "leave out key z" in refusal(save(tmp_path / f"rows{suffix}", ROWS), "z")


def test_only_parameters_are_spelled_as_options(tmp_path):
    path = save_many(tmp_path / "`lr`.npz", {"`dim`": ROWS, "b": ROWS})
    with pytest.raises(SettingError) as caught:
        read_rows(path)
    text = caught.value.as_options()
    assert "'lr'.npz has 2" in text
    assert "'dim' (5, 3) float32" in text
    assert text.endswith("choose one with --key NAME")
    assert str(caught.value) == text.replace("--key", "key")


def test_names_with_line_breaks_and_terminal_codes_are_shown_in_one_line(tmp_path):
    path = save_many(tmp_path / "rows.pt", {"a\nb": ROWS, "\x1b[31m": ROWS})
    assert r"a\nb (5, 3) float32, \x1b[31m (5, 3) float32" in refusal(path)
    assert torch.equal(read_rows(path, "a\nb"), ROWS)
    with pytest.raises(ValueError, match=r"^\S*/no\\nfile\.npy does not exist"):
        read_rows(tmp_path / "no\nfile.npy")


def test_numbered_keys_are_chosen_by_their_digits(tmp_path):
    assert torch.equal(read_rows(save_many(tmp_path / "rows.pt", {0: ROWS, 1: ROWS + 1}), "1"), ROWS + 1)


def test_settings_beside_a_tensor_do_no_harm(tmp_path):
    rest = {"epoch": 3, "args": {"lr": 0.1}, "names": ["cat"], "labels": torch.arange(5)}
    assert torch.equal(read_rows(save_many(tmp_path / "rows.pt", {"z": ROWS, **rest})), ROWS)


def test_elements_of_tuples_and_lists_are_named_by_their_number(tmp_path):
    path = tmp_path / "rows.pt"
    torch.save((ROWS, torch.arange(5)), path)  # as many save embeddings and labels
    assert torch.equal(read_rows(path), ROWS)
    assert "array 1 has shape (5,)" in refusal(path, "1")
    torch.save([ROWS, ROWS + 1], path)
    assert torch.equal(read_rows(path, "1"), ROWS + 1)
    torch.save([ROWS, ROWS[:, :2]], path)
    words = "has 2 two-dimensional floating arrays: 0 (5, 3) float32, 1 (5, 2) float32; choose one as FILE:0"
    assert words in refusal(path)
    torch.save(list(ROWS), path)
    assert "join them with torch.stack and save that" in refusal(path)
    torch.save([], path)
    assert "holds no array" in refusal(path)


# --------------------------------------------------------------------------------------------------------------- models


@pytest.mark.parametrize(
    ("checkpoint", "keys"),
    [
        (torch.nn.Linear(4, 3).state_dict(), "weight, bias"),
        (torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3)).state_dict(), "0.weight, 0.bias"),
        ({"epoch": 2, "state_dict": torch.nn.Linear(4, 3).state_dict()}, "epoch, state_dict;"),
        ({"model": OrderedDict({"embed": ROWS}), "centroids": ROWS}, "model, centroids;"),
        ({"a": {"b": {"c": ROWS}}}, "a;"),
        ({f"layer{i}.weight": ROWS for i in range(20)}, "layer7.weight and 12 more;"),
    ],
)
def test_model_is_recognised(tmp_path, checkpoint, keys):
    path = tmp_path / "model.pt"
    torch.save(checkpoint, path)
    message = refusal(path)
    assert "looks like a model" in message
    assert keys in message
    assert "give the embeddings it computes, not the model" in message


def test_model_in_safetensors_is_recognised_and_a_matrix_of_it_can_still_be_named(tmp_path):
    path = save_many(tmp_path / "model.safetensors", {"fc.weight": ROWS, "fc.bias": ROWS[:, 0].clone()})
    assert "looks like a model, with keys fc." in refusal(path)
    assert torch.equal(read_rows(path, "fc.weight"), ROWS)


def test_key_of_a_dict_is_refused(tmp_path):
    torch.save({"state_dict": {"w": ROWS}, "epoch": 2}, tmp_path / "model.pt")
    assert "array state_dict holds a dict of tensors" in refusal(tmp_path / "model.pt", "state_dict")
    assert "array epoch holds a Python int" in refusal(tmp_path / "model.pt", "epoch")


def test_whole_module_and_torchscript_are_refused(tmp_path):
    torch.save(torch.nn.Linear(4, 3), tmp_path / "module.pt")
    assert "holds pickled objects, which are never loaded" in refusal(tmp_path / "module.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated; its files are not gone
        torch.jit.save(torch.jit.script(torch.nn.Linear(4, 3)), tmp_path / "script.pt")
    assert "is a TorchScript model; give the embeddings" in refusal(tmp_path / "script.pt")
