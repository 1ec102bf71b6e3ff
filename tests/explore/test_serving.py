"""`dyncollapse explore`: what it refuses, what it writes, and how it ends."""

import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest
from click.testing import CliRunner
from helpers import forks
from helpers.programs import refused
from helpers.waiting import eventually

from dyncollapse.commands.main import main
from dyncollapse.explore.serving import PAGE, open_port

# Answers come from this machine, whatever proxies the environment names.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def explore(*words):
    return CliRunner().invoke(main, ["explore", *words])


@pytest.mark.parametrize("port", ["0", "-1", "65536", "1e99", "nan", "eighty", ""])
def test_a_bad_port_is_refused_in_one_line(port):
    assert "--port" in refused(explore(f"--port={port}", "--no-browser"))


def test_a_taken_port_is_refused_in_one_line():
    pytest.importorskip("marimo")
    with open_port(None) as taken:
        port = taken.getsockname()[1]
        line = refused(explore("--port", str(port), "--no-browser"))
    assert line.startswith(f"dyncollapse: --port is {port}, and it cannot be used (")


def test_the_loopback_alone_is_listened_to():
    with open_port(None) as found:
        assert found.getsockname()[0] == "127.0.0.1"


def test_without_marimo_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "marimo", None)
    line = refused(explore("--no-browser"))
    assert line.startswith("dyncollapse: explore needs marimo")
    assert "explore]" in line


def test_a_copy_of_the_page_is_a_notebook_with_its_style(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = explore("--copy", "mine.py")
    assert (done.exit_code, done.stdout) == (0, "Saved mine.py; marimo edit mine.py opens it\n")
    assert sorted(os.listdir()) == ["mine.css", "mine.py"]
    text = (tmp_path / "mine.py").read_text()
    assert 'css_file="mine.css"' in text
    assert text.replace("mine.css", "page.css") == PAGE.read_text()
    assert "mine.py" in refused(explore("--copy", "mine.py"))
    for name in ("mine.txt", "", ".", "..", ".py", "mine.py/x"):
        assert "--copy" in refused(explore("--copy", name))
    assert sorted(os.listdir()) == ["mine.css", "mine.py"]


def test_a_copy_into_a_missing_or_locked_folder_is_refused_by_the_name_that_was_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = refused(explore("--copy", "none/mine.py"))
    assert line == "dyncollapse: --copy is 'none/mine.py', and 'none' is no folder; name another folder"
    monkeypatch.setattr(os, "access", lambda *_: False)  # the superuser may write everywhere
    assert "'.' cannot be written" in refused(explore("--copy", "mine.py"))
    assert os.listdir() == []


def test_a_copy_runs_as_a_program(tmp_path):
    pytest.importorskip("marimo")
    assert explore("--copy", str(tmp_path / "mine.py")).exit_code == 0
    done = forks.run([tmp_path / "mine.py"])
    assert (done.returncode, done.stderr) == (0, "")


@contextmanager
def served(folder, *words):
    """A server in a process of its own, its address, and what it says on stderr."""
    command = ["-m", "dyncollapse", "explore", "--no-browser", *words]
    with forks.running(command, folder, stdout=subprocess.PIPE) as (program, said):
        line = program.stdout.readline()
        assert line.startswith("Explore at http://127.0.0.1:"), (line, said())
        yield program, line.split()[2], said


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_on_a_signal_without_a_traceback(tmp_path, number):
    pytest.importorskip("marimo")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with served(tmp_path, "--port", str(port)) as (program, address, said):
        assert address == f"http://127.0.0.1:{port}"
        assert eventually(lambda: status(address)) == 200
        for headers in ({"Host": "example.org"}, {"Origin": "https://example.org"}):
            assert status(address, headers) == 403
        program.send_signal(number)
        assert program.wait() == 0
        assert said().split() == ["Stopped."]
        with pytest.raises(ConnectionError):
            socket.create_connection(("127.0.0.1", port))


def status(address, headers=()):
    """The status of the answer; 0 where there is none."""
    try:
        with OPENER.open(urllib.request.Request(address, headers=dict(headers))) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except urllib.error.URLError:
        return 0
