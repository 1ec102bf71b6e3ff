"""Run the parts of the real-scale check, and update the report after each."""

import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

import torch

from dyncollapse.bridge.evaluation.paper_tables import as_markdown, orders_as_markdown
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
        folder: Gets report.json, summary.md and report.png, updated after each part; with CIFAR-10 also cifar.png and
            cifar/, a folder for each run.
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
    }
    scratch = Path(mkdtemp(dir=folder, prefix=".scratch-", suffix=PARTIAL))
    try:
        for part in PARTS:
            now = time.time()
            until = min(started + 60 * minutes - RESERVE, now + part.most)
            site = Site(TINY if tiny else FULL, device, scratch, folder, until, cifar)
            tell(f"{part.number}. {part.title}: {duration(max(0.0, until - now))} at most")
            if until - now < LEAST:
                outcome: PartResult | Failure[PartResult] = Failure("no time was left for it; give more --minutes")
            else:
                outcome = measure_part(part, site, lambda text: tell(f"   {text}"))
            values = _part_values(part, outcome, time.time() - now)
            tell("\n".join([f"   {values['status']}, {duration(values['seconds'])}", *values["details"].splitlines()]))
            report["parts"] = sorted([*report["parts"], values], key=lambda values: values["number"])
            report |= {"seconds": time.time() - started, "passed": _passed(report["parts"])}
            _write(report, folder, tell)
    finally:
        rmtree(scratch, ignore_errors=True)
    return report


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


def _write(report: dict[str, Any], folder: Path, tell: Callable[[str], object]) -> None:
    write_json(folder / "report.json", report)
    write_bytes(folder / "summary.md", summary(report).encode())

    def draw() -> "Figure":
        from dyncollapse.bridge.real_scale.pictures import (
            draw_report,  # imports Matplotlib, which may fail
        )

        return draw_report(report)

    if problem := save_picture(folder / "report.png", draw):
        tell(f"   {problem}")


def is_unfinished(folder: Path) -> bool:
    """Whether a folder holds the report of a check that was killed before all parts were done."""
    try:
        return len(read_json(folder / "report.json")["parts"]) < len(PARTS)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def summary(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    verdict = "passed" if report["passed"] else "FAILED"
    if len(report["parts"]) < len(PARTS):
        verdict = f"unfinished, {len(report['parts'])} of {len(PARTS)} parts {verdict}"
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
        if part["details"]:
            lines += ["```", part["details"].rstrip(), "```", ""]
        lines += [f"- {finding['sentence']}" for finding in part["findings"]]
        lines += [f"- skipped: {text}" for text in part["skipped"]]
        if "rows" in part["values"]:
            lines += ["", as_markdown(part["values"]["rows"]), orders_as_markdown(part["values"]["orders"])]
            lines += [f"- against the paper: {text}" for text in part["values"]["contradictions"]]
            lines += [f"- unlike the paper: {text}" for text in part["values"]["differences"]]
    return "\n".join(lines) + "\n"


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory / 2**30
        return f"{torch.cuda.get_device_name(device)}, {memory:.0f} GiB"
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"CPU, {line.partition(':')[2].strip()}"
    return "CPU"
