"""Files that others made are opened without blocking, and read up to a bound."""

import os
import socket

import pytest

from dyncollapse.bridge.presets import resolve
from dyncollapse.bridge.training.training_log import read_log
from dyncollapse.runtime.files import read_json
from dyncollapse.runtime.settings_file import MOST_TOML
from dyncollapse.runtime.untrusted import open_regular, read_bytes, read_text, regular


def others(folder):
    """A path of each kind that is no regular file, and the word for it."""
    pipe, link, name = folder / "pipe", folder / "link", folder / "s"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    here = os.getcwd()
    os.chdir(folder)  # a socket's path has at most 107 bytes
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(name.name)
    os.chdir(here)
    kinds = ((folder, "directory"), (pipe, "pipe"), (link, "pipe"), (name, "socket"))
    return *kinds, ("/dev/zero", "device"), ("/dev/full", "device")


@pytest.mark.parametrize("read", [regular, open_regular, read_bytes, read_text, read_json], ids=lambda f: f.__name__)
def test_anything_but_a_regular_file_is_refused_and_not_opened(tmp_path, read):
    for path, kind in others(tmp_path):
        with pytest.raises(ValueError, match=f"^it is a {kind}, not a regular file$"):
            read(path)
    with pytest.raises(ValueError, match="zero byte"):
        read("a\0b")
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "missing")


def test_a_pipe_that_takes_the_place_of_a_file_after_the_check_does_not_block(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "x")
    monkeypatch.setattr("dyncollapse.runtime.untrusted.regular", lambda _path: None)
    with pytest.raises(ValueError, match="it is a pipe"):
        open_regular(tmp_path / "x")


def test_a_file_beyond_its_bound_is_not_read(tmp_path):
    path = tmp_path / "x.json"
    path.touch()
    os.truncate(path, 2**40)  # a hole, which takes no disk
    with pytest.raises(ValueError, match="it has 1099511627776 bytes, and at most 16777216 are read"):
        read_json(path)
    path.write_bytes(b"12345")
    assert read_bytes(path, 5) == b"12345"
    with pytest.raises(ValueError, match="at most 4"):
        read_bytes(path, 4)


@pytest.mark.skipif(not os.path.exists("/proc/self/cmdline"), reason="needs a file that is larger than it says")
def test_a_file_larger_than_its_size_is_not_read_beyond_the_bound():
    with pytest.raises(ValueError, match="it grows while it is read, beyond 3 bytes"):
        read_bytes("/proc/self/cmdline", 3)


def test_one_encoding(tmp_path):
    path = tmp_path / "x.json"
    for encoding, text in (("utf-8", "ä"), ("utf-8-sig", "ä")):
        path.write_bytes(f'"{text}"'.encode(encoding))
        assert read_json(path) == "ä"
    for encoding in ("utf-16", "utf-32"):
        path.write_bytes("[1]".encode(encoding))
        with pytest.raises(ValueError, match="UTF-16 or UTF-32; save it as UTF-8"):
            read_json(path)
    path.write_bytes(b'"\xff"')
    with pytest.raises(ValueError, match="byte 1 is not UTF-8"):
        read_json(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 10**6, "nested too deeply"),
        ('{"a":' * 10**5, "nested too deeply"),
        ("[NaN]", "it holds NaN"),
        ("[-Infinity]", "it holds -Infinity"),
        ("1e999", "a number too large"),
        ("9" * 5000, "digits"),
        ("", "Expecting value"),
        ("{", "Expecting property name"),
    ],
    ids=range(8),
)
def test_text_that_is_no_json(tmp_path, text, words):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=words):
        read_json(tmp_path / "x.json")


@pytest.mark.parametrize(
    "text",
    ["a = " + "[" * 5000, "a." * 5000 + "a = 1", "a" * MOST_TOML, "a = " + "9" * 5000, "[" + "a." * 5000 + "a]", "\0"],
    ids=range(6),
)
def test_recipes_that_no_one_writes_are_one_line(tmp_path, text):
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(ValueError, match=r"^config .*x\.toml (is|has) [^\n]*$"):
        resolve({}, tmp_path / "x.toml")


def test_recipe_with_a_byte_order_mark(tmp_path):
    (tmp_path / "x.toml").write_bytes(b'\xef\xbb\xbfdata = "digits"\n')
    assert resolve({}, tmp_path / "x.toml").data == "digits"


def test_a_line_inside_a_journal_that_is_none_is_named_and_a_last_one_may_be_cut(tmp_path):
    line = '{"step": 1, "loss": 2.0}\n'
    (tmp_path / "log.jsonl").write_text(line + line[:9])
    assert read_log(tmp_path / "log.jsonl") == [{"step": 1, "loss": 2.0}]
    (tmp_path / "log.jsonl").write_text(line + "[" * 10**5 + "\n" + line)
    with pytest.raises(ValueError, match="line 2 is nested too deeply"):
        read_log(tmp_path / "log.jsonl")
