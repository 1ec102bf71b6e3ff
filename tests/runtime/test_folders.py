"""Folders for results: who may use one, and that it holds all of them or none."""

import os
import signal
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from dyncollapse.runtime.files import CannotWrite, write_bytes
from dyncollapse.runtime.folders import InUse, claimed_folder, held, is_free, replaced_folder, whole_folder

NAMES = {"one.txt", "two.txt", "three"}


def fill(folder):
    for name in sorted(NAMES - {"three"}):
        write_bytes(folder / name, name.encode())
    (folder / "three").mkdir()
    write_bytes(folder / "three" / "four.txt", b"4")


def names(folder):
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_folders_are_numbered_and_those_with_nothing_in_them_used_again(here):
    with ExitStack() as stack:
        claimed = [stack.enter_context(claimed_folder(None, "simulate")) for _ in range(3)]
        assert [str(folder) for folder in claimed] == [f"runs/simulate-000{k}" for k in (1, 2, 3)]
        (claimed[1] / "run.json").touch()
    assert names(here / "runs") == {"simulate-0002"}
    with claimed_folder(None, "simulate") as first, claimed_folder(None, "simulate") as third:
        assert (first.name, third.name) == ("simulate-0001", "simulate-0003")


@pytest.mark.parametrize("out", [None, "a/b/c"])
def test_what_was_created_for_nothing_is_removed(here, out):
    with pytest.raises(KeyboardInterrupt), claimed_folder(out and here / out, "simulate"):
        raise KeyboardInterrupt
    assert not names(here)
    (here / "mine").mkdir()
    with claimed_folder(here / "mine", "simulate"):
        pass
    assert names(here) == {"mine"}  # the user's own stays


def test_given_folder_must_be_new_or_empty_and_is_not_touched_else(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "run.json").touch()
    before = (tmp_path / "full").stat().st_mtime_ns
    with pytest.raises(ValueError, match="already holds files"), claimed_folder(tmp_path / "full", "simulate"):
        pass
    assert (tmp_path / "full").stat().st_mtime_ns == before
    for place in ("full/run.json", "full/run.json/below", "a" * 300):
        with pytest.raises(ValueError, match="cannot be written"), claimed_folder(tmp_path / place, "simulate"):
            pass


@pytest.mark.parametrize("claim", [claimed_folder, whole_folder])
def test_of_two_that_want_a_folder_the_second_is_refused(tmp_path, claim):
    with claim(tmp_path / "new", "simulate"):
        for _ in range(2):
            with pytest.raises(InUse, match=f"in use by process {os.getpid()} on .*; wait for its end"):
                claim(tmp_path / "new", "simulate").__enter__()
    with claim(tmp_path / "new", "simulate"):
        pass


def test_what_a_killed_process_left_is_removed_and_blocks_nothing(tmp_path):
    out = tmp_path / "killed"
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from dyncollapse.runtime.files import partial_path\n"
        "from dyncollapse.runtime.folders import claimed_folder\n"
        "with claimed_folder(Path(sys.argv[1]), 'simulate') as folder:\n"
        "    partial_path(folder / 'run.json').write_text('{')\n"
        "    partial_path(folder / 'embeddings').mkdir()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, out], check=False).returncode == -signal.SIGKILL
    assert len(names(out)) == 4
    assert is_free(out)
    with claimed_folder(out, "simulate") as folder:
        assert names(folder) == {".lock", ".lock.holder"}


def test_folder_that_goes_on_is_taken_with_its_files(tmp_path):
    (tmp_path / "run.json").write_text("begun")
    with claimed_folder(tmp_path, "simulate", lambda folder: (folder / "run.json").exists()) as folder:
        assert (folder / "run.json").read_text() == "begun"
    assert names(tmp_path) == {"run.json"}


@pytest.mark.parametrize("given", ["new", "empty", "linked", "."])
def test_whole_folder_is_there_at_the_end_and_not_before(here, given):
    for name in ("empty", "elsewhere"):
        (here / name).mkdir()
    (here / "linked").symlink_to(here / "elsewhere")
    if given == ".":
        os.chdir(here / "empty")
    with whole_folder(here / given if given != "." else here / "empty", "diagnose") as (partial, folder):
        fill(partial)
        assert not NAMES & names(folder)
    assert names(folder) == NAMES
    assert (folder / "three" / "four.txt").read_bytes() == b"4"
    assert not [name for name in names(here) if name.startswith(".")]
    assert names(folder) == NAMES if given != "." else set(os.listdir()) == NAMES


def test_whole_folder_of_a_block_that_fails_is_none(here):
    def work():
        with whole_folder(here / "new", "diagnose") as (partial, _):
            fill(partial)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert not names(here)


def test_whole_folder_that_is_filled_meanwhile_is_refused(here):
    def work():
        with whole_folder(here / "new", "diagnose") as (partial, folder):
            fill(partial)
            (folder / "thesis.tex").touch()

    with pytest.raises(CannotWrite, match="not empty") as caught:
        work()
    assert caught.value.filename == str(here / "new")
    assert names(here / "new") == {"thesis.tex"}


def test_results_that_a_kill_left_on_their_way_are_moved_on(here):
    # As in a folder that cannot be replaced, in which the shell stands: all is whole, and one file has arrived.
    moving = here / "new" / ".moving"
    moving.mkdir(parents=True)
    fill(moving)
    (moving / "one.txt").rename(here / "new" / "one.txt")
    with pytest.raises(ValueError, match="already holds files"), claimed_folder(here / "new", "diagnose"):
        pass
    assert names(here / "new") == NAMES


def test_what_cannot_be_written_is_named_as_the_user_knows_it(here):
    with pytest.raises(CannotWrite) as caught, whole_folder(here / "new", "diagnose") as (partial, _):
        write_bytes(partial / "missing" / "one.txt", b"1")
    assert caught.value.filename == str(here / "new" / "missing" / "one.txt")
    assert not names(here)


def test_lock_that_cannot_be_taken_is_refused(here):
    (here / "new").mkdir()
    with held(here / "new"), pytest.raises(InUse):
        held(here / "new").__enter__()
    assert not names(here / "new")


def test_replaced_folder_holds_the_new_results_alone(here):
    for given in (here / "new", here / "linked", "new"):
        (here / "elsewhere").mkdir(exist_ok=True)
        if given == here / "linked":
            given.symlink_to(here / "elsewhere")
            (given / "old.txt").touch()
        with replaced_folder(Path(given)) as (partial, folder):
            fill(partial)
            assert "three" not in (names(folder) if folder.exists() else ()) or given == "new"
        assert names(folder) == NAMES
        assert not [name for name in names(here) if name.startswith(".")]
    assert names(here / "elsewhere") == NAMES


def test_replaced_folder_of_a_block_that_fails_is_as_it_was(here):
    (here / "old").mkdir()
    (here / "old" / "thesis.tex").touch()
    with suppress(ZeroDivisionError), replaced_folder(here / "old") as (partial, _):
        fill(partial)
        raise ZeroDivisionError
    assert names(here) == {"old"}
    assert names(here / "old") == {"thesis.tex"}


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_replaced_folder_is_whole_after_a_kill_at_any_of_its_renames(here, renames):
    (here / "old").mkdir()
    (here / "old" / "thesis.tex").touch()
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from dyncollapse.runtime.folders import replaced_folder\n"
        "rename, left = os.rename, [int(sys.argv[1])]\n"
        "def dying(*names):\n"
        "    if not left[0]:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    left[0] -= 1\n"
        "    rename(*names)\n"
        "os.rename = dying\n"
        "with replaced_folder(Path('old')) as (partial, _):\n"
        "    (partial / 'new.txt').touch()\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(renames)], check=False)
    assert done.returncode == -signal.SIGKILL
    if (here / "old").exists():
        assert names(here / "old") == {"thesis.tex"}
    with suppress(ZeroDivisionError), replaced_folder(here / "old") as (partial, folder):
        assert names(folder) == ({"thesis.tex"} if renames == 0 else {"new.txt"})
        assert names(partial) == {".lock", ".lock.holder"}
        raise ZeroDivisionError
    assert "old" in names(here)


def test_of_two_that_replace_a_folder_the_second_is_refused_by_the_name_it_knows(here):
    with replaced_folder(here / "new"), pytest.raises(InUse, match=rf"^{here}/new is in use by process {os.getpid()}"):
        replaced_folder(here / "new").__enter__()
    (here / "file").touch()
    with pytest.raises(ValueError, match="file is in the way"), replaced_folder(here / "file"):
        pass
    with pytest.raises(ValueError, match="cannot be written"), replaced_folder(here / "missing" / "new"):
        pass
