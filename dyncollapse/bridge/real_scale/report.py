"""Run the parts of the real-scale check, and update the report after each."""

import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

import torch

from dyncollapse.bridge.evaluation.paper_tables import as_markdown
from dyncollapse.bridge.real_scale.findings import Finding, PartResult, Site
from dyncollapse.bridge.real_scale.parts import PARTS, Part, measure_part
from dyncollapse.bridge.real_scale.scale import FULL, TINY
from dyncollapse.bridge.real_scale.subprocesses import Failure
from dyncollapse.runtime.canvas import save_picture
from dyncollapse.runtime.files import PARTIAL, read_json, write_bytes, write_json
from dyncollapse.runtime.process import cores
from dyncollapse.runtime.progress import duration
from dyncollapse.simulation.report import versions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REPORT, SUMMARY, PICTURE = "report.json", "summary.md", "report.png"
RESERVE = 20.0  # seconds for starting, writing and cleaning up
LEAST = 5.0  # with less than these seconds left, no part is started
OPTIONAL = {"tensorboard": "its logs are not written"}


def run_parts(
    folder: Path,
    device: torch.device,
    *,
    tiny: bool = False,
    cifar: Path | None = None,
    minutes: float = 9.0,
    tell: Callable[[str], object] = print,
) -> dict[str, Any]:
    """Run all parts, each in a process of its own.

    A part that fails, hangs or has no time left is reported as FAILED, and the others go on.

    Args:
        folder: Gets report.json and summary.md, updated with every line and partial result of the running part, so
            that they survive whatever ends this process; report.png, updated after each part; with CIFAR-10 also
            cifar.png and cifar/, a folder for each run. What a killed check left of these is removed.
        device: Where to compute.
        tiny: Whether to run every part at toy size.
        cifar: CIFAR-10, a folder or an archive; None to leave it out.
        minutes: Time limit for all parts together.
        tell: Called with lines on the progress.

    Returns:
        The report as plain JSON values.
    """
    started = time.time()
    missing = [f"{name} is not installed: {what}" for name, what in OPTIONAL.items() if find_spec(name) is None]
    report: dict[str, Any] = {
        "scale": "tiny" if tiny else "full",
        "device": _device_name(device),
        "cores": cores(),
        "versions": versions("timm", "torchvision", "scikit-learn", "kornia", "tensorboard"),
        "seed": 0,
        "minutes": minutes,
        "skipped": missing,
        "parts": [],
        "running": None,
    }
    for name in (REPORT, SUMMARY, PICTURE, "cifar.png"):
        (folder / name).unlink(missing_ok=True)
    rmtree(folder / "cifar", ignore_errors=True)
    scratch = Path(mkdtemp(dir=folder, prefix=".scratch-", suffix=PARTIAL))
    try:
        for part in PARTS:
            now = time.time()
            until = min(started + 60 * minutes - RESERVE, now + part.most)
            site = Site(TINY if tiny else FULL, device, scratch, folder, until, cifar)
            tell(f"{part.number}. {part.title}: {duration(max(0.0, until - now))} at most")
            running = _Running(part, report, folder, started)
            running.update()
            if until - now < LEAST:
                outcome: PartResult | Failure[PartResult] = Failure("no time was left for it; give more --minutes")
            else:
                outcome = measure_part(part, site, partial(_told, running, tell), running.keep)
            values = _part_values(part, outcome, time.time() - now) | {"last_line": running.line}
            tell("\n".join([f"   {values['status']}, {duration(values['seconds'])}", *values["details"].splitlines()]))
            report["parts"] = sorted([*report["parts"], values], key=lambda values: values["number"])
            report |= {"seconds": time.time() - started, "passed": _passed(report["parts"]), "running": None}
            _write(report, folder)
            _draw(report, folder, tell)
    finally:
        rmtree(scratch, ignore_errors=True)
    return report


@dataclass
class _Running:
    """The part that is running, in the report: its last line and what it has measured so far."""

    part: Part
    report: dict[str, Any]
    folder: Path
    started: float
    line: str = ""
    saved: PartResult = field(default_factory=lambda: PartResult([]))

    def hear(self, line: str) -> None:
        self.line = line
        self.update()

    def keep(self, saved: PartResult) -> None:
        self.saved = saved
        self.update()

    def update(self) -> None:
        """Write the report as it would be read if this process were killed now."""
        measured = _measured_values(self.saved)
        running = {"number": self.part.number, "title": self.part.title, "last_line": self.line, **measured}
        seconds = time.time() - self.started
        self.report |= {"seconds": seconds, "passed": _passed(self.report["parts"]), "running": running}
        _write(self.report, self.folder)


def _told(running: _Running, tell: Callable[[str], object], line: str) -> None:
    running.hear(line)
    tell(f"   {line}")


def _passed(parts: list[dict[str, Any]]) -> bool:
    return all(part["status"] != "FAILED" for part in parts)


def _part_values(part: Part, outcome: PartResult | Failure[PartResult], seconds: float) -> dict[str, Any]:
    failure, result = (outcome, outcome.saved or PartResult([])) if isinstance(outcome, Failure) else (None, outcome)
    failed = failure is not None or result.failed
    reasons = [failure.reason] if failure is not None else []
    return {
        "number": part.number,
        "title": part.title,
        "seconds": seconds,
        "status": "FAILED" if failed else "ok" if result.findings else "skipped",
        "reason": "; ".join(reasons + [finding.sentence for finding in result.findings if finding.fails]),
        "details": "" if failure is None else failure.details,
        **_measured_values(result),
    }


def _measured_values(result: PartResult) -> dict[str, Any]:
    return {
        "findings": [_finding_values(finding) for finding in result.findings],
        "skipped": result.skipped,
        "values": _plain(result.values),
    }


def _finding_values(finding: Finding) -> object:
    return _plain(asdict(finding) | {"holds": finding.holds, "sentence": finding.sentence})


def _plain(value: object) -> object:
    """The value with None in place of NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write(report: dict[str, Any], folder: Path) -> None:
    write_json(folder / REPORT, report)
    write_bytes(folder / SUMMARY, summary(report).encode())


def _draw(report: dict[str, Any], folder: Path, tell: Callable[[str], object]) -> None:
    def draw() -> "Figure":
        from dyncollapse.bridge.real_scale.pictures import (
            draw_report,  # imports Matplotlib, which may fail
        )

        return draw_report(report)

    if problem := save_picture(folder / PICTURE, draw):
        tell(f"   {problem}")


def is_unfinished(folder: Path) -> bool:
    """Whether a folder holds the report of a check that ended before all parts were done."""
    try:
        return len(read_json(folder / REPORT)["parts"]) < len(PARTS)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def summary(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    verdict = "passed" if report["passed"] else "FAILED"
    if len(report["parts"]) < len(PARTS):
        verdict = f"unfinished, {len(report['parts'])} of {len(PARTS)} parts {verdict}"
        if running := report["running"]:
            verdict += f", part {running['number']} was running"
    packages = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    lines = [
        f"# Real-scale check: {verdict}",
        "",
        f"{report['device']}, {report['cores']} cores, {report['scale']} size, {duration(report['seconds'])}.",
        f"{packages}.",
        *(f"Skipped: {text}." for text in report["skipped"]),
    ]
    for part in report["parts"]:
        lines += ["", f"## {part['number']}. {part['title']}: {part['status']}, {duration(part['seconds'])}", ""]
        if part["status"] == "FAILED":
            lines += [f"**{part['reason']}**", ""]
            lines += _last_line(part)
        if part["details"]:
            lines += ["```", part["details"].rstrip(), "```", ""]
        lines += _measured_lines(part)
    if running := report["running"]:
        lines += ["", f"## {running['number']}. {running['title']}: was running when this was written", ""]
        lines += [*_last_line(running), *_measured_lines(running)]
    return "\n".join(lines) + "\n"


def _last_line(part: dict[str, Any]) -> list[str]:
    return [f"Its last line: {part['last_line']}", ""] if part["last_line"] else []


def _measured_lines(part: dict[str, Any]) -> list[str]:
    """What a part has measured and left out."""
    lines = [f"- {finding['sentence']}" for finding in part["findings"]]
    lines += [f"- skipped: {text}" for text in part["skipped"]]
    if "rows" in part["values"]:
        lines += ["", as_markdown(part["values"])]
        lines += [f"- against the paper: {text}" for text in part["values"]["contradictions"]]
        lines += [f"- unlike the paper: {text}" for text in part["values"]["differences"]]
    return lines


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory / 2**30
        return f"{torch.cuda.get_device_name(device)}, {memory:.0f} GiB"
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"CPU, {line.partition(':')[2].strip()}"
    return "CPU"
