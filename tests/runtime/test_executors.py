"""Every kind of worker, for real: processes, Dask's LocalCluster, submitit on this machine, Slurm if there is one."""

import gc
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from multiprocessing import forkserver, get_all_start_methods

import pytest
from helpers.constants import set_constant
from helpers.waiting import PATIENCE, alive, eventually
from helpers.without_torch import without_torch

from dyncollapse.runtime.executors import begin_server, dask_workers, local_workers, slurm_workers


@pytest.fixture
def submitted(tmp_path):
    return lambda **given: slurm_workers(tmp_path / "jobs", cluster="local", **given)


def test_local_processes_return_results():
    with local_workers(2).start() as executor:
        assert [executor.submit(math.factorial, i).result() for i in range(4)] == [1, 1, 2, 6]


@pytest.mark.skipif("forkserver" not in get_all_start_methods(), reason="processes that fork")
def test_workers_are_forked_from_the_server_that_was_begun():
    assert begin_server()
    server = forkserver._forkserver._forkserver_pid
    assert begin_server()  # does nothing
    with local_workers(1).start() as executor:
        assert executor.submit(os.getppid).result() == server


@pytest.fixture(scope="module")
def fresh_server():
    """No server that another module's tests began in this process: it may have imported other things."""
    forkserver._forkserver._stop()


@pytest.mark.usefixtures("fresh_server")
def test_workers_look_for_garbage_but_not_among_what_their_server_imported():
    with local_workers(1).start() as executor:
        assert executor.submit(gc.isenabled).result()
        assert executor.submit(gc.get_freeze_count).result() > 10_000


@pytest.mark.parametrize("order", [("parent_watchdog", "numba_first_call"), ("numba_first_call", "parent_watchdog")])
def test_imports_of_the_server_leave_the_search_for_garbage_to_other_programs(order):
    names = ", ".join(f"dyncollapse.runtime.{name}" for name in order)
    code = f"import gc, {names}; print(gc.isenabled(), gc.get_freeze_count())"
    result = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True)
    assert result.stdout == "True 0\n"


@pytest.mark.usefixtures("fresh_server")
def test_workers_find_numba_ready():
    with local_workers(1).start() as executor:  # what numba imports at its first call
        assert executor.submit(eval, "'numba.np.arrayobj' in __import__('sys').modules").result()


SIGNALS = """
import signal
from dyncollapse.runtime.executors import local_workers
def blocked():
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
if __name__ == "__main__":
    with local_workers(2).start() as executor:
        print(executor.submit(blocked).result(), blocked())
"""


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="POSIX signals")
def test_workers_leave_ctrl_c_to_the_sweep_from_their_first_moment(tmp_path):
    # In a program of its own: workers inherit the signals of their server, which another test may have started.
    (tmp_path / "program.py").write_text(SIGNALS)
    command, given = [sys.executable, tmp_path / "program.py"], without_torch(tmp_path)
    assert subprocess.check_output(command, env=given, text=True) == "True False\n"


def test_local_workers_share_the_cores():
    assert local_workers(5, 3).count == 5
    assert local_workers().count == len(os.sched_getaffinity(0))
    assert local_workers(None, 3 * len(os.sched_getaffinity(0))).count == 1


@pytest.mark.parametrize("count", [0, -1, 10**5])
def test_counts_beyond_all_reason_are_refused(count):
    for start in (lambda: local_workers(count), lambda: local_workers(1, count), lambda: dask_workers(count)):
        with pytest.raises(ValueError, match=rf" is {count}; it must be between 1 and \d+, 16 for each usable core"):
            start()


PROGRAM = """
from dyncollapse.runtime.executors import local_workers
{guard}
    with local_workers(1).start():
        pass
"""


@pytest.mark.parametrize(
    ("given", "guard", "words"),
    [
        ("-", 'if __name__ == "__main__":', "<stdin> is not a file; save the program in one"),
        ("program.py", "if True:", 'put its work under `if __name__ == "__main__":`'),
    ],
)
def test_program_that_workers_cannot_import_is_reported_in_one_line(tmp_path, given, guard, words):
    code = PROGRAM.format(guard=guard)
    (tmp_path / "program.py").write_text(code)
    command, environment = [sys.executable, given], without_torch(tmp_path)
    result = subprocess.run(
        command, input=code, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.stderr.count("Traceback") == 1  # its own, of a library's ValueError
    last = result.stderr.splitlines()[-1]
    assert last.startswith("ValueError: ")
    assert last.endswith(words)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's signal at the death of a parent")
def test_server_of_workers_ends_with_a_program_that_is_killed_while_it_imports(tmp_path):
    code = (
        "from dyncollapse.runtime.executors import local_workers\n"
        "if __name__ == '__main__':\n"
        "    with local_workers(1).start():\n"
        "        pass\n"
    )
    (tmp_path / "program.py").write_text(code)
    # The server finds an import that never ends. The program itself needs no PyTorch.
    environment = without_torch(
        tmp_path,
        "import os, pathlib, time\n"
        "folder = pathlib.Path(__file__).parent\n"
        "(folder / 'begun').write_text(str(os.getpid()))\n"
        "(folder / 'begun').rename(folder / 'server')\n"
        "time.sleep(3600)\n",
    )
    program = subprocess.Popen([sys.executable, tmp_path / "program.py"], env=environment)
    try:
        eventually((tmp_path / "server").exists)
    finally:
        program.kill()
        program.wait()
    server = int((tmp_path / "server").read_text())
    assert server != program.pid
    eventually(lambda: not alive(server))


@pytest.mark.skipif(os.name != "posix", reason="POSIX semaphores and signals")
def test_a_program_that_is_killed_leaves_nothing_on_the_terminal(tmp_path):
    code = (
        "import time\n"
        "from dyncollapse.runtime.executors import local_workers\n"
        "if __name__ == '__main__':\n"
        "    with local_workers(1).start():\n"
        "        print('started', flush=True)\n"
        "        time.sleep(60)\n"
    )
    (tmp_path / "program.py").write_text(code)
    command, given = [sys.executable, tmp_path / "program.py"], without_torch(tmp_path)
    program = subprocess.Popen(command, env=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert program.stdout is not None
    assert program.stdout.readline() == "started\n"
    program.kill()
    _, stderr = program.communicate(timeout=30)  # the end of all that hold stderr
    assert stderr == ""


def test_local_processes_end_with_their_context():
    with local_workers(1).start() as executor:
        future = executor.submit(time.sleep, 3600)
        eventually(future.running)
    assert future.exception() is not None


def test_local_processes_end_with_a_program_that_is_killed(tmp_path):
    code = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from dyncollapse.runtime.executors import local_workers\n"
        "def tell():\n"
        "    Path(sys.argv[1] + '.partial').write_text(str(os.getpid()))\n"
        "    os.rename(sys.argv[1] + '.partial', sys.argv[1])\n"
        "    time.sleep(3600)\n"
        "if __name__ == '__main__':\n"
        "    with local_workers(1).start() as executor:\n"
        "        executor.submit(tell).result()\n"
    )
    (tmp_path / "program.py").write_text(code)
    pid_file = tmp_path / "pid"
    # The worker imports `tell` from the program, which reads its arguments as the program does.
    program = subprocess.Popen([sys.executable, tmp_path / "program.py", pid_file], env=without_torch(tmp_path))
    try:
        eventually(pid_file.exists)
    finally:
        program.kill()
        program.wait()
    worker = int(pid_file.read_text())
    eventually(lambda: not alive(worker))


def test_dask_cluster_of_two_returns_results_and_repeats_what_is_asked_again():
    workers = dask_workers(2)
    assert workers.count == 2
    with workers.start() as executor:
        futures = [executor.submit(math.factorial, i) for i in (1, 4, 1)]
        assert [future.result() for future in futures] == [1, 24, 1]
        assert len({executor.submit(time.monotonic_ns).result() for _ in range(2)}) == 2


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nowhere://1"])
def test_scheduler_that_does_not_answer_is_reported_in_one_line(address, monkeypatch):
    set_constant(monkeypatch, "runtime.executors.CONNECT", "1s")
    with pytest.raises(ValueError, match=f"^scheduler {address} does not answer") as caught:
        dask_workers(scheduler=address).start().__enter__()
    assert "\n" not in str(caught.value)
    assert caught.value.as_options().startswith(f"--scheduler {address} ")


def test_submitted_jobs_return_results_and_what_killed_them(submitted, monkeypatch):
    # submitit waits this long for a result that a slow file system may still hold back.
    patience = property(lambda _job: 1, lambda _job, _seconds: None)
    monkeypatch.setattr("submitit.core.core.Job._results_timeout_s", patience, raising=False)
    with submitted(count=2).start() as executor:
        good, bad = executor.submit(math.factorial, 3), executor.submit(os._exit, 9)
        assert good.result(timeout=PATIENCE) == 6
        assert bad.exception(timeout=PATIENCE) is not None


def test_submitted_jobs_are_cancelled_with_their_context(submitted, monkeypatch):
    set_constant(monkeypatch, "runtime.executors.GRACE", PATIENCE)  # wait for the job's end, whenever it comes
    with submitted().start() as executor:
        future = executor.submit(time.sleep, 3600)
    assert future.cancelled()


@pytest.mark.skipif(shutil.which("sinfo") is not None, reason="here is a Slurm")
def test_missing_slurm_is_reported_in_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"^executor slurm: ") as caught:
        slurm_workers(tmp_path)
    assert "\n" not in str(caught.value)
    assert caught.value.as_options().startswith("--executor slurm: ")


def test_unknown_option_of_slurm_is_reported_in_one_line(submitted):
    with pytest.raises(ValueError, match="Unknown argument 'colour'") as caught:
        submitted(options={"colour": "red"})
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(shutil.which("sinfo") is None, reason="no Slurm on this machine")
def test_slurm_returns_results_and_what_killed_them(tmp_path, monkeypatch):
    if subprocess.run(["sinfo"], capture_output=True, check=False).returncode:
        pytest.skip("Slurm does not answer")
    set_constant(monkeypatch, "runtime.executors.ASK_QUEUE", 3.0)
    with slurm_workers(tmp_path / "jobs", options={"time": "5"}).start() as executor:
        good, bad = executor.submit(math.factorial, 3), executor.submit(os._exit, 9)
        assert good.result(timeout=PATIENCE) == 6
        assert bad.exception(timeout=PATIENCE) is not None


def test_refused_submission_is_reported_in_one_line(submitted, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise RuntimeError(
            "sbatch: error: invalid partition specified: none\nsbatch: error: Batch job submission failed"
        )

    monkeypatch.setattr("submitit.AutoExecutor.submit", refuse)
    with (
        submitted().start() as executor,
        pytest.raises(
            ValueError, match=r"^executor slurm: sbatch: error: invalid partition specified: none; run where"
        ),
    ):
        executor.submit(math.factorial, 3)


@pytest.mark.parametrize(("module", "start"), [("distributed", dask_workers), ("submitit", slurm_workers)])
def test_missing_extra_is_reported_in_one_line(module, start, tmp_path, monkeypatch):
    monkeypatch.setattr("dyncollapse.runtime.extras.find_spec", lambda name: None if name == module else 1)
    with pytest.raises(ValueError, match=r"needs the extra: .*pip install 'dyncollapse\[cluster\]'"):
        start(tmp_path)
