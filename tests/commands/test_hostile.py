"""What strangers send is refused in one line, in seconds and in little memory, whatever is to be made of it."""

import json
import os
import re
import sys
import time
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from helpers import forks
from helpers.hostile_files import FILES, write_pt

from dyncollapse.bridge.models.checkpoint_tensors import flatten, read_tensors
from dyncollapse.commands.main import main
from dyncollapse.diagnostics.readers import read_rows

SECONDS, ROOM = 5, 2**30


def refused(read, path):
    """The message of the ValueError that reading raises in time: one short line that begins with the path."""
    start = time.process_time()
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))} ") as caught:
        read(path)
    return checked(path, str(caught.value), time.process_time() - start)


def checked(path, message, seconds):
    assert seconds < SECONDS
    assert message.startswith(f"{path} ")
    assert len(message.splitlines()) == 1
    assert message.isprintable()
    assert len(message) < len(str(path)) + 1500
    return message


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder for hostile files, each of which is written once."""
    return tmp_path_factory.mktemp("hostile")


def written(place, name):
    if not os.path.lexists(place / name):
        FILES[name](place / name)
    return place / name


# Sound tensors, of which no encoder is made.
READ = ("zero_dimensional", "empty", "truths", "complex_numbers", "eight_bits", "overlapping", "names_for_a_terminal")
READ += ("cyclic_list", "shared_lists", "deep_lists", "deep_tuples", "keys_of_one_hash", "keys_of_other_kinds")
READ += ("attributes_for_methods", "endless_memo")


# Files that might take much: a process that counts its memory reads one after the other.
MUCH = ("million", "bomb", "shared", "hundred", "header_of", "stride", "beyond", "size", "long", "endless", "nested")
HEAVY = [name for name in FILES if any(word in name for word in MUCH)]
READ_HEAVY = """
import json, pathlib, resource, sys, time
from dyncollapse.bridge.models.checkpoint_tensors import read_tensors
from dyncollapse.diagnostics.readers import read_rows
def told(read, path):
    start = time.process_time()
    try:
        read(path)
        message = ""
    except ValueError as error:
        message = str(error)
    return [message, time.process_time() - start]
place, *names = sys.argv[1:]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name in names:
    path = pathlib.Path(place, name)
    found = {read.__name__: told(read, path) for read in (read_tensors, read_rows)}
    print(json.dumps([found, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before]))
"""


@pytest.fixture(scope="module")
def heavy(place):
    """What reading each heavy file says, after how many seconds, and the most memory until then, in kB."""
    for name in HEAVY:
        written(place, name)
    done = forks.run(["-c", READ_HEAVY, place, *HEAVY])
    assert done.returncode == 0, done.stderr
    return dict(zip(HEAVY, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("name", FILES)
def test_no_rows_come_of_it(place, name, request):
    if name in HEAVY:  # what takes seconds to read is read once
        checked(place / name, *request.getfixturevalue("heavy")[name][0]["read_rows"])
    else:
        refused(read_rows, written(place, name))


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith((".pt", ".safetensors"))])
def test_tensors_come_of_it_only_where_they_are_sound(place, name, request):
    path = written(place, name)
    if path.stem in READ:
        start = time.process_time()
        tensors = flatten(read_tensors(path))
        assert time.process_time() - start < SECONDS
        assert all(type(tensor) is torch.Tensor and tensor.detach().clone().numel() <= 256 for _, tensor in tensors)
    elif name in HEAVY:
        checked(path, *request.getfixturevalue("heavy")[name][0]["read_tensors"])
    else:
        refused(read_tensors, path)


@pytest.mark.skipif(sys.platform != "linux", reason="counts kilobytes, as Linux does")
def test_nothing_takes_much_memory(heavy):
    assert len(heavy) > 30
    assert max(memory for _, memory in heavy.values()) * 1024 < ROOM


COMMANDS = (
    ("diagnose",),
    ("bridge", "embed", "--data", "digits", "--checkpoint"),
    ("bridge", "diagnose", "--data", "digits", "--checkpoint"),
    ("bridge", "probe", "--data", "digits", "--checkpoint"),
)


def fails(command, path):
    """The one line on stderr of a command that ends with 2."""
    done = CliRunner().invoke(main, [*command, str(path)])
    assert done.exit_code == 2, (done.output, done.exception)
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.rstrip("\n").isprintable()
    assert not done.stdout
    return done.stderr


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[:2]))
@pytest.mark.parametrize(
    "name", ["cyclic.pt", "shared_levels.pt", "sparse.pt", "meta.pt", "stride_zero.pt", "cut_zip.pt"]
)
def test_commands_end_with_one_line(tmp_path, monkeypatch, command, name):
    monkeypatch.chdir(tmp_path)
    FILES[name](tmp_path / name)
    assert name in fails(command, name)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[:2]))
def test_what_is_no_file_is_not_opened(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.pt")
    Path("zero.npy").symlink_to("/dev/zero")
    Path("zero.pt").symlink_to("/dev/zero")
    os.mkdir("folder.pt")
    for name in ("pipe.pt", "zero.npy", "zero.pt", "folder.pt", "/dev/stdin", "missing\x1b[31m.pt"):
        fails(command, name)


def test_names_that_are_not_utf8(tmp_path):
    for suffix in (".npy", ".npz", ".pt", ".safetensors"):
        path = tmp_path / os.fsdecode(b"\xff" + suffix.encode())
        try:
            path.write_bytes(b"nothing")
        except OSError:
            pytest.skip("file systems of some systems take UTF-8 alone")
        with pytest.raises(ValueError, match=r"\\udcff") as caught:
            read_rows(path)
        assert str(caught.value).isprintable()


def test_numbers_written_on_a_machine_of_the_other_byte_order(tmp_path):
    from helpers.hostile_files import Claim, tensor

    numbers = torch.arange(4.0)
    data = numbers.numpy().astype(">f4").tobytes()
    write_pt(tmp_path / "big.pt", {"z": tensor(storage=Claim(4))}, {"0": data}, byteorder=b"big")
    assert torch.equal(read_rows(tmp_path / "big.pt"), numbers.reshape(2, 2))


@pytest.mark.parametrize(
    "command",
    [
        ("bridge", "table"),
        ("bridge", "pretrain", "--resume", "--out"),
        ("collect",),
        ("sweep", "--lr", "0.1,0.2", "--steps", "2", "--out"),
        ("sweep", "--lr", "0.1,0.2", "--steps", "2", "--dry-run", "--out"),
    ],
    ids=" ".join,
)
def test_what_is_no_folder_is_named_for_what_it_is(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    Path("device").symlink_to("/dev/zero")
    Path("file").touch()
    for name, kind in (("pipe", "a pipe"), ("device", "a device"), ("file", "a file")):
        start = time.process_time()
        assert fails(command, name).startswith(f"dyncollapse: {name} is {kind}, not a folder; ")
        assert time.process_time() - start < SECONDS


@pytest.mark.parametrize(
    "command",
    [
        ("bridge", "table", "folder"),
        ("bridge", "pretrain", "--data", "digits", "--config", "folder/config.json"),
        ("bridge", "pretrain", "--resume", "--out", "folder"),
        ("bridge", "embed", "--data", "digits", "--checkpoint", "folder"),
        ("collect", "folder"),
        ("sweep", "--lr", "0.1,0.2", "--steps", "2", "--out", "folder"),
    ],
    ids=" ".join,
)
def test_pipes_in_the_folder_of_a_run_or_sweep_do_not_block(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    os.makedirs("folder/checkpoints")
    for name in ("config.json", "probes.json", "diagnosis.json", "log.jsonl", "sweep.json", "failures.json"):
        os.mkfifo(f"folder/{name}")
    os.mkfifo("folder/checkpoints/step-00000001.pt")
    assert "a pipe, not a regular file" in fails(command[:-1], command[-1])
