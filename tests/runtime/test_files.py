"""Files that are whole or not there, whatever library writes them."""

import errno
import threading

import numpy as np
import pytest
import torch
from helpers.programs import small_disk
from matplotlib.figure import Figure

from dyncollapse.bridge.training.run_folder import add_probe
from dyncollapse.runtime.canvas import picture, save_picture
from dyncollapse.runtime.files import (
    CannotWrite,
    is_partial,
    partial_path,
    read_json,
    remove_partial,
    write_bytes,
    write_json,
    write_whole,
)

CONTENT = torch.arange(10_000, dtype=torch.float64)
WRITERS = {
    "torch": lambda file: torch.save({"a": CONTENT}, file),
    "savez": lambda file: np.savez(file, a=CONTENT.numpy()),
    "save": lambda file: np.save(file, CONTENT.numpy()),
    "bytes": lambda file: file.write(CONTENT.numpy().tobytes()),
    "png": lambda file: Figure().savefig(file, format="png", dpi=300),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("size", [0, 100, 5000])
def test_a_refused_write_is_named_and_leaves_the_earlier_file(tmp_path, write, size):
    path = tmp_path / "file"
    write_bytes(path, b"earlier")
    with small_disk(size), pytest.raises(CannotWrite) as caught:
        write_whole(path, write)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))
    assert caught.value.strerror == "File too large"
    assert path.read_bytes() == b"earlier"
    write_whole(path, write)
    assert path.stat().st_size > 5000
    assert [found.name for found in tmp_path.iterdir()] == ["file"]


def test_what_libraries_write_through_it_reads_back(tmp_path):
    for name in ("torch", "savez", "save"):
        write_whole(tmp_path / name, WRITERS[name])
    assert torch.equal(torch.load(tmp_path / "torch", weights_only=True)["a"], CONTENT)
    assert np.array_equal(np.load(tmp_path / "savez")["a"], CONTENT)
    assert np.array_equal(np.load(tmp_path / "save"), CONTENT)


def test_an_error_that_is_no_refused_write_passes(tmp_path):
    def fail(file):
        file.write(b"half")
        raise RuntimeError("of its own")

    with pytest.raises(RuntimeError, match="of its own"):
        write_whole(tmp_path / "file", fail)
    with pytest.raises(CannotWrite, match="No such file"):
        write_bytes(tmp_path / "nowhere" / "file", b"")
    assert not list(tmp_path.iterdir())


def test_temporary_names_are_hidden_unlike_and_short_enough(tmp_path):
    path = tmp_path / ("ä" * 120)
    names = {partial_path(path) for _ in range(100)}
    assert len(names) == 100
    for name in names:
        assert is_partial(name)
        assert name.parent == tmp_path
        assert len(name.name.encode()) < 255
    write_bytes(path, b"1")
    (tmp_path / ".a.partial").mkdir()
    (tmp_path / ".b.partial").touch()
    (tmp_path / ".mine").touch()
    remove_partial(tmp_path)
    assert {found.name for found in tmp_path.iterdir()} == {path.name, ".mine"}


def test_of_writers_at_once_one_is_whole(tmp_path):
    path = tmp_path / "file.json"

    def write(number):
        for _ in range(20):
            write_json(path, [number] * 1000)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert not path.exists() or len(set(read_json(path))) == 1
    assert [found.name for found in tmp_path.iterdir()] == ["file.json"]


def test_of_probes_that_end_at_once_none_is_lost(tmp_path):
    probe = {"method": "logistic", "dimensions": 8, "top1": 50.0, "error": 1.0}
    threads = [threading.Thread(target=add_probe, args=(tmp_path, probe | {"step": k})) for k in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(probe["step"] for probe in read_json(tmp_path / "probes.json")) == list(range(20))


def test_pictures_know_no_settings_of_the_users(monkeypatch):
    import matplotlib

    def draw():
        figure = Figure(figsize=(2, 2))
        figure.add_subplot().plot([1, 2], label="$x$")
        return figure

    plain = picture(draw), picture(draw, "svg", {"svg.hashsalt": "a"})
    for name, value in {"text.usetex": True, "font.family": "nowhere", "savefig.bbox": "tight"}.items():
        monkeypatch.setitem(matplotlib.rcParams, name, value)
    assert (picture(draw), picture(draw, "svg", {"svg.hashsalt": "a"})) == plain
    assert matplotlib.rcParams["text.usetex"] is True


def test_a_picture_that_fails_is_a_line(tmp_path):
    def broken():
        raise RuntimeError("no ink\nmore")

    assert save_picture(tmp_path / "a.png", broken) == f"{tmp_path / 'a.png'} could not be drawn (no ink)"
    with small_disk(100):
        assert save_picture(tmp_path / "a.png", Figure) == f"{tmp_path / 'a.png'} could not be written (File too large)"
    assert not list(tmp_path.iterdir())
    assert save_picture(tmp_path / "a.png", Figure) == ""
