"""The real-scale check: how failures are told."""

import json
import multiprocessing
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from helpers import bridge as parts
from helpers import forks
from helpers.constants import set_constant
from helpers.real_scale import CPU, Clock, call, site
from helpers.waiting import PATIENCE, alive, eventually
from helpers.without_torch import without_torch

from dyncollapse.bridge.real_scale import report, subprocesses
from dyncollapse.bridge.real_scale.findings import Finding, PartResult
from dyncollapse.bridge.real_scale.parts import PARTS, Part
from dyncollapse.bridge.real_scale.scale import FULL
from dyncollapse.runtime.folders import claimed_folder

# --- What runs the parts


def run(folder, monkeypatch, *measures, minutes=60.0, hear=lambda _text: None):
    chosen = tuple(Part(k, measure.__name__, measure, PATIENCE) for k, measure in enumerate(measures, 7))
    set_constant(monkeypatch, "bridge.real_scale.report.PARTS", chosen)
    said = []
    folder.mkdir()
    found = report.run_parts(folder, CPU, tiny=True, minutes=minutes, tell=lambda text: (said.append(text), hear(text)))
    return found, said


def test_parts_that_fail_are_told_and_the_others_go_on(tmp_path, monkeypatch):
    found, said = run(
        tmp_path / "out",
        monkeypatch,
        parts.wrong_part,
        parts.raising_part,
        parts.dying_part,
        parts.good_part,
        parts.skipped_part,
    )
    assert [part["status"] for part in found["parts"]] == ["FAILED", "FAILED", "FAILED", "ok", "skipped"]
    assert [part["reason"] for part in found["parts"]] == [
        "error: 0.5 (at most 0.1: FAILED)",
        "OSError: [Errno 28] No space left on device",
        "its process died with exit code -9",
        "",
        "",
    ]
    assert not found["passed"]
    assert found["parts"][2]["findings"][0]["sentence"] == "speed: 1 m/s"  # what it had saved
    assert found["parts"][2]["values"] == {"a": None}
    assert "   at it" in said
    text = (tmp_path / "out" / "summary.md").read_text()
    assert text.startswith("# Real-scale check: FAILED\n")
    assert "- aim: 1 (target: at least 2: missed)" in text  # and the part is ok
    assert "- skipped: nothing to do it with" in text
    assert "raising_part" in found["parts"][1]["details"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"report.json", "summary.md", "report.png"}


def test_part_that_hangs_is_ended_with_what_it_started(tmp_path, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(report, "time", clock)
    monkeypatch.setattr(subprocesses, "time", clock)
    found, _ = run(
        tmp_path / "out",
        monkeypatch,
        parts.hanging_part,
        parts.good_part,
        hear=lambda text: text == "   asleep" and clock.pass_by(PATIENCE),
    )
    assert [part["status"] for part in found["parts"]] == ["FAILED", "ok"]
    assert found["parts"][0]["reason"] == "it did not end in time and was stopped"
    assert not alive(int((tmp_path / "out" / "sleeper").read_text()))


def test_parts_for_which_no_time_is_left_fail(tmp_path, monkeypatch):
    found, _ = run(tmp_path / "out", monkeypatch, parts.good_part, minutes=0.1)
    assert found["parts"][0]["reason"] == "no time was left for it; give more --minutes"


def test_a_part_out_of_memory_says_what_it_did(tmp_path, monkeypatch):
    found, said = run(tmp_path / "out", monkeypatch, parts.part_without_memory, parts.good_part)
    assert [part["status"] for part in found["parts"]] == ["FAILED", "ok"]
    assert found["parts"][0]["reason"] == "OutOfMemoryError: CUDA out of memory. Tried to allocate 80 GiB"
    assert found["parts"][0]["last_line"] == "filling the memory"
    assert "Its last line: filling the memory" in (tmp_path / "out" / "summary.md").read_text()
    assert "   filling the memory" in said
    assert found["running"] is None


KILLED = """
import sys
from pathlib import Path
import torch
from helpers import bridge as helpers
from dyncollapse.bridge.real_scale import report
from dyncollapse.bridge.real_scale.parts import Part
if __name__ == "__main__":
    report.PARTS = (Part(7, "good", helpers.good_part, 3600), Part(8, "long", helpers.measuring_part, 3600))
    report.run_parts(Path(sys.argv[1]), torch.device("cpu"), tiny=True, minutes=60)
"""


def test_a_check_that_is_killed_leaves_what_was_measured_and_names_the_running_part(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "cifar").mkdir()  # of an earlier check, killed in this folder
    command = forks.start(["-c", KILLED, out])
    summary = out / "summary.md"
    try:
        eventually(lambda: summary.exists() and "measuring for an hour" in summary.read_text())
    finally:
        command.kill()
        command.wait()
    text = summary.read_text()
    assert text.startswith("# Real-scale check: unfinished, 1 of 2 parts passed, part 8 was running\n")
    assert "## 8. long: was running when this was written" in text
    assert "Its last line: measuring for an hour" in text
    assert "- speed: 3 m/s" in text
    assert "## 7. good: ok" in text
    found = json.loads((out / "report.json").read_text())
    assert (found["running"]["number"], found["running"]["values"]) == (8, {"a": None})
    assert report.is_unfinished(out)  # also with six parts
    assert not (out / "cifar").exists()
    with claimed_folder(out, "check-full", report.is_unfinished):
        assert not list(out.glob(".scratch*"))


@pytest.mark.slow
def test_the_command_may_be_killed_at_any_time(tmp_path):
    out = tmp_path / "out"
    command = ["-m", "dyncollapse", "bridge", "check", "--full", "--tiny", "--device", "cpu", "--out", out]
    process = forks.start(command)
    try:
        eventually((out / "summary.md").exists)
    finally:
        process.kill()
        process.wait()
    assert ", part 4 was running" in (out / "summary.md").read_text().splitlines()[0]
    assert json.loads((out / "report.json").read_text())["parts"] == []
    assert report.is_unfinished(out)


def test_failed_part_ends_the_command_with_1(tmp_path, monkeypatch):
    set_constant(monkeypatch, "bridge.real_scale.report.PARTS", (Part(7, "wrong", parts.wrong_part, PATIENCE),))
    result = call("--full", "--tiny", "--device", "cpu", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == "dyncollapse: part 7: error: 0.5 (at most 0.1: FAILED)"
    assert "# Real-scale check: FAILED" in result.stdout


def test_findings_say_whether_they_hold():
    for value, least, holds in ((0.9, True, True), (0.89, True, False), (0.9, False, True), (0.91, False, False)):
        assert Finding("x", value, limit=0.9, least=least).holds is holds
    for missing in (None, float("nan")):
        assert Finding("x", missing, limit=0.9).holds is False
    assert Finding("x", 1.0).holds is None
    assert Finding("rate", 12345.6, "images/s").sentence == "rate: 12,346 images/s"
    assert not PartResult([Finding("x", 2.0, limit=1.0, target=True)]).failed
    assert PartResult([Finding("x", 2.0, limit=1.0)]).failed


def test_what_was_not_measured_is_null_in_the_report(tmp_path, monkeypatch):
    found, _ = run(tmp_path / "out", monkeypatch, parts.part_without_numbers)
    (part,) = json.loads((tmp_path / "out" / "report.json").read_text())["parts"]
    assert part == found["parts"][0]
    assert [finding["value"] for finding in part["findings"]] == part["values"]["x"] == [None, None]


def test_speeds_are_judged_at_full_size_only(tmp_path):
    tiny = site(tmp_path)
    assert tiny.target("x", 0.1, 0.9, least=True).holds is None
    assert replace(tiny, scale=FULL).target("x", 0.1, 0.9, least=True).holds is False


def test_parts_are_those_of_the_issue_and_fit_the_time():
    assert sorted(part.number for part in PARTS) == [1, 2, 3, 4, 5, 6]
    assert PARTS[-1].number == 6  # takes what the others leave
    assert sum(part.most for part in PARTS[:-1]) <= 9 * 60


def test_a_picture_that_cannot_be_drawn_ends_nothing(tmp_path, monkeypatch):
    def broken(_report):
        raise TypeError("no picture")

    monkeypatch.setattr("dyncollapse.bridge.real_scale.pictures.draw_report", broken)
    found, said = run(tmp_path / "out", monkeypatch, parts.good_part)
    assert found["passed"]
    assert f"   {tmp_path / 'out' / 'report.png'} could not be drawn (no picture)" in said


def test_a_part_starts_its_workers_as_a_command_does():
    found = subprocesses.run_in_subprocess(parts.start_method, time.time() + PATIENCE, print)
    assert found == multiprocessing.get_start_method()


def test_a_command_that_is_killed_leaves_no_part_behind(tmp_path):
    code = """
import sys, time
from helpers.without_torch import sleep_and_tell
from functools import partial
from dyncollapse.bridge.real_scale.subprocesses import run_in_subprocess
if __name__ == "__main__":
    run_in_subprocess(partial(sleep_and_tell, sys.argv[1]), time.time() + 3600, print)
"""
    environment = without_torch(tmp_path)  # the part's process and its server would import it, too
    command = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "pid")], env=environment)
    try:
        eventually((tmp_path / "pid").exists)
    finally:
        command.kill()
        command.wait()
    part = int((tmp_path / "pid").read_text())
    eventually(lambda: not alive(part))
