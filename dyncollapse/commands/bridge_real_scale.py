"""Run `dyncollapse bridge check --full`: the full-size check of one device, part by part, with a report."""

import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

import click
import torch

from dyncollapse.bridge.data.images import open_data
from dyncollapse.bridge.real_scale.report import is_unfinished, run_parts, summary
from dyncollapse.commands.bridge_shared import refusals
from dyncollapse.commands.shared import fail, say, say_saved, use_machine
from dyncollapse.runtime.folders import claimed_folder
from dyncollapse.runtime.process import cores


@dataclass(frozen=True)
class RealScaleOptions:
    """The options of `bridge check` that belong to --full."""

    tiny: bool
    device: str | None
    cifar: Path | None
    minutes: float | None

    def named(self) -> list[str]:
        """The names of the options that were given."""
        given = {"--tiny": self.tiny, "--device": self.device, "--cifar": self.cifar, "--minutes": self.minutes}
        return [name for name, value in given.items() if value]


def check_real_scale(options: RealScaleOptions, out: Path | None, *, as_json: bool) -> None:
    """Run all parts, print the summary, and exit with 1 if a part failed."""
    device = options.device or ("cpu" if options.tiny and not torch.cuda.is_available() else "cuda")
    with refusals():
        if options.cifar is not None:
            _check_cifar(options.cifar)
        use_machine(device, cores())
        with claimed_folder(out, "check-full", is_unfinished) as folder:
            kept = f"what was measured until then is in {folder}/"
            try:
                report = run_parts(
                    folder,
                    torch.device(device),
                    tiny=options.tiny,
                    cifar=options.cifar,
                    minutes=options.minutes or 9.0,
                    tell=lambda text: say(text, err=True),
                )
            except KeyboardInterrupt:
                fail(130, f"Interrupted; {kept}")
            except OSError as error:
                fail(1, f"{error.filename or folder} could not be written ({error.strerror}); {kept}")
    if as_json:
        click.echo(json.dumps({"folder": str(folder), **report}, allow_nan=False))
    for line in summary(report).splitlines():
        say(line, err=as_json)
    say_saved(folder, sorted(path.name for path in folder.iterdir()), to_stderr=as_json)
    if not report["passed"]:
        failed = (f"part {part['number']}: {part['reason']}" for part in report["parts"] if part["status"] == "FAILED")
        fail(1, "; ".join(failed))


def _check_cifar(path: Path) -> None:
    """Raise ValueError before the first part for a path that would fail in the last, minutes later."""
    if not path.exists():
        raise ValueError(f"--cifar {path} is not there; give a folder of CIFAR-10, or its archive")
    if path.is_dir():
        open_data(str(path), lambda _text: None).check_labels()  # the part that reads it reports what is skipped
    elif not tarfile.is_tarfile(path):
        raise ValueError(f"--cifar {path} is no folder and no tar archive; give CIFAR-10 as one of these")
