import os
import signal
import subprocess
import sys

import pytest

from dyncollapse.runtime.program import run_program

# What a program does before it ends; it tells whether Python frees what it holds.
PROGRAM = """
import atexit, sys, threading, time
from dyncollapse.runtime.program import run_program

class Held:
    def __del__(self):
        print("freed")

held = Held()
atexit.register(print, "at exit")

def work():
    sys.stdout.write("written ")
    {work}

run_program(work)
"""


def ended(tmp_path, work, *before, stdout=subprocess.PIPE):
    (tmp_path / "program.py").write_text(PROGRAM.format(work=work))
    command = [sys.executable, *before, "program.py"]
    return subprocess.run(command, text=True, stdout=stdout, stderr=subprocess.PIPE, cwd=tmp_path, check=False)


@pytest.mark.parametrize(("code", "status"), [("", 0), ("0", 0), ("3", 3), ("None", 0)])
def test_a_program_ends_with_its_code_and_calls_and_writes_but_frees_nothing(code, status, tmp_path):
    result = ended(tmp_path, f"sys.exit({code})")
    assert (result.returncode, result.stdout, result.stderr) == (status, "written at exit\n", "")


def test_the_end_prints_what_it_is_given_in_place_of_a_code(tmp_path):
    result = ended(tmp_path, "sys.exit('why')")
    assert (result.returncode, result.stdout, result.stderr) == (1, "written at exit\nfreed\n", "why\n")


def test_errors_are_shown_by_python(tmp_path):
    result = ended(tmp_path, "1 / 0")
    assert result.returncode == 1
    assert result.stderr.endswith("ZeroDivisionError: division by zero\n")


def test_threads_that_go_on_are_waited_for(tmp_path):
    slow = "threading.Thread(target=lambda: (time.sleep(0.2), print('done'))).start(); sys.exit(4)"
    result = ended(tmp_path, slow)
    assert (result.returncode, result.stdout) == (4, "written done\nat exit\nfreed\n")


def test_a_profiler_around_the_program_writes_its_result(tmp_path):
    result = ended(tmp_path, "sys.exit(0)", "-m", "cProfile", "-o", "profile")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "profile").stat().st_size > 0


def test_output_that_nobody_reads_is_told_as_by_python(tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    reader, writer = os.pipe()
    os.close(reader)
    result = ended(tmp_path, "sys.exit(0)", stdout=writer)
    os.close(writer)
    assert result.returncode == 120
    assert result.stderr.count("BrokenPipeError") == 1


def test_what_calls_a_program_goes_on(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM.format(work="sys.exit(5)"))
    caller = "import runpy\ntry:\n    runpy.run_path('program.py', run_name='__main__')\nexcept SystemExit as ended:\n"
    caller += "    print('went on after', ended.code)\n"
    result = subprocess.run([sys.executable, "-c", caller], text=True, capture_output=True, cwd=tmp_path, check=True)
    assert "went on after 5" in result.stdout


CAUGHT = """
from dyncollapse.runtime.program import run_program

try:
    run_program(lambda: exit(5))
except SystemExit as ended:
    print("went on after", ended.code)
finally:
    print("at last")
"""


def test_a_program_that_catches_the_end_goes_on(tmp_path):
    result = subprocess.run([sys.executable, "-c", CAUGHT], text=True, capture_output=True, cwd=tmp_path, check=True)
    assert result.stdout == "went on after 5\nat last\n"


def test_a_function_that_is_called_by_no_program_ends_nothing():
    with pytest.raises(SystemExit, match="6"):
        run_program(lambda: sys.exit(6))


PROMPT = "import sys; from dyncollapse.runtime.program import run_program; run_program(lambda: sys.exit(0))"


def test_a_prompt_that_was_asked_for_comes_after_the_program(tmp_path):
    given = {"input": "print('alive')\n", "text": True, "cwd": tmp_path, "capture_output": True, "check": False}
    assert "alive" in subprocess.run([sys.executable, "-i", "-c", PROMPT], **given).stdout


def test_a_variable_that_asks_for_a_prompt_leaves_the_end_to_python(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONINSPECT", "1")  # which prints what ended the program, and asks where there is a terminal
    given = {"text": True, "cwd": tmp_path, "capture_output": True, "check": False, "stdin": subprocess.DEVNULL}
    assert subprocess.run([sys.executable, "-c", PROMPT], **given).stderr.endswith("SystemExit: 0\n")


def test_ctrl_c_while_a_program_ends_prints_nothing(tmp_path):
    late = "atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT)); sys.exit(0)"
    result = ended(tmp_path, f"import os, signal; {late}")
    assert (result.returncode, result.stderr) == (-signal.SIGINT, "")
