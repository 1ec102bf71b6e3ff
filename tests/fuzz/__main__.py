"""`python -m fuzz` in the folder tests/: the long form, a table of tries and violations, and a JSON of each fault."""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from fuzz.campaign import SHARES, Count, campaign, minimised
from fuzz.runner import SECONDS, Runner, Try
from fuzz.world import build


def arguments() -> argparse.Namespace:
    """What the user asks for."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--tries", type=int, default=2000, help="shared among the classes  [2000]")
    parser.add_argument("--seed", type=int, default=0, help="other tries for another seed  [0]")
    parser.add_argument("--only", action="append", choices=list(SHARES), help="this class only; repeatable")
    parser.add_argument("--json", type=Path, help="write counts and faults to this file")
    parser.add_argument("--minimise", action="store_true", help="find the smallest try of each fault")
    parser.add_argument("--again", help="run one try, given as a fault's JSON holds it, and show what it does")
    return parser.parse_args()


def main() -> int:
    """Run the long form; 1 where anything was violated."""
    given = arguments()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
        runner = Runner(Path(place) / "tries")
        try:
            if given.again:
                return again(runner, given.again)
            found = campaign(runner, given.tries, given.seed, tuple(given.only or SHARES), say)
            if given.minimise:
                for count in found.values():
                    count.faults = {s: minimised(runner, t, s, SECONDS + 2) for s, t in count.faults.items()}
        finally:
            runner.close()
    if given.json:
        given.json.write_text(json.dumps(as_values(found, given), indent=1) + "\n")
    sys.stdout.write(table(found))
    return int(any(count.violated for count in found.values()))


def say(text: str) -> None:
    """Progress, at once."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def again(runner: Runner, text: str) -> int:
    """One try of an earlier campaign."""
    build(runner)
    values = json.loads(text)
    tried = Try(values["kind"], *(tuple(values[name]) for name in ("arguments", "needs", "steps")), values["large"])
    outcome = runner.run(tried, SECONDS + 2)
    sys.stdout.write(
        f"{outcome.stdout}\n--- stderr\n{outcome.stderr}\n--- exit {outcome.code}, {outcome.seconds:.2f} s\n"
    )
    sys.stdout.write(f"violations: {outcome.signature or 'none'}\n")
    return int(bool(outcome.violations))


def as_values(found: dict[str, Count], given: argparse.Namespace) -> dict[str, Any]:
    """Counts and faults as plain JSON values."""
    classes = {
        kind: {
            "tries": count.tries,
            "violated": count.violated,
            "slow": count.slow,
            "longest_seconds": round(count.longest, 2),
            "exit_codes": {str(code): times for code, times in sorted(count.codes.items())},
            "faults": {signature: json.loads(tried.as_json()) for signature, tried in count.faults.items()},
        }
        for kind, count in found.items()
    }
    totals = {name: sum(entry[name] for entry in classes.values()) for name in ("tries", "violated", "slow")}
    return {"seed": given.seed, **totals, "classes": classes}


def _row(kind: str, count: Count) -> tuple[str, ...]:
    codes = ", ".join(f"{code}: {times}" for code, times in sorted(count.codes.items()))
    numbers = (count.tries, count.violated, len(count.faults), count.slow)
    return (kind, *map(str, numbers), f"{count.longest:.1f} s", codes)


def table(found: dict[str, Count]) -> str:
    """Tries and violations of each class, as text."""
    head = ("class", "tries", "violated", "faults", "slow", "longest", "exit codes")
    rows = [head, *(_row(kind, count) for kind, count in found.items())]
    tries, violated = (sum(getattr(count, name) for count in found.values()) for name in ("tries", "violated"))
    rows.append(("all", str(tries), str(violated), "", "", "", ""))
    lines = [f"{first:<14}" + "".join(f"{cell:>10}" for cell in rest) + f"  {last}" for first, *rest, last in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
