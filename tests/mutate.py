"""Try wrong formulas (mutations.toml) on copies of the package: which claims of `dyncollapse verify` catch each?

`python tests/mutate.py [WORD ...]` tries those whose description holds a word, all unless given, prints what it finds
and exits with 1 where one is caught by no claim without a reason. `--out FILE` writes JSON of what was found.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
# Seconds that the claims of one mutation may take: a wrong formula can make a flow endless.
PATIENCE = 1800

Mutation = dict[str, Any]
MUTATIONS: list[Mutation] = tomllib.loads((Path(__file__).parent / "mutations.toml").read_text())["mutation"]


def mutated(mutation: Mutation, package: Path) -> str:
    """The text of the mutated file. Raises ValueError unless the old text stands in it exactly once."""
    text = (package / mutation["file"]).read_text()
    if (count := text.count(mutation["old"])) != 1:
        raise ValueError(f"{mutation['file']} holds {mutation['old']!r} {count} times; a mutation needs it once")
    return text.replace(mutation["old"], mutation["new"])


def surprising(tree: Path, names: list[str]) -> list[str]:
    """Claims of the package in `tree` that behave unlike expected, of those named or of all."""
    chosen = [word for name in names for word in ("--claim", name)]
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-m", "dyncollapse", "verify", "--json", "--workers", "1", *chosen],
        check=False,
        capture_output=True,
        text=True,
        cwd=tree,
        env=environment,
        timeout=PATIENCE,
    )
    if result.returncode not in (0, 1) or not result.stdout:
        raise RuntimeError(f"verify ended with {result.returncode}: {result.stderr[-500:]}")
    claims = json.loads(result.stdout)["claims"]
    return [c["name"] for c in claims if c["error"] is not None or c["holds"] != c["expected"]]


def attempt(mutation: Mutation) -> Mutation:
    """Apply one mutation to a copy of the package and run its claims; all of them where none of its own catches it."""
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "dyncollapse"
        shutil.copytree(ROOT / "dyncollapse", package, ignore=shutil.ignore_patterns("__pycache__"))
        (package / mutation["file"]).write_text(mutated(mutation, package))
        caught = surprising(Path(folder), mutation["claims"]) or surprising(Path(folder), [])
    return {"what": mutation["what"], "file": mutation["file"], "caught": caught, "reason": mutation.get("reason")}


def table(found: list[Mutation]) -> list[str]:
    """Rows of a Markdown table: every mutation, its file, and the claims that catch it or why none can."""
    rows = ["| wrong formula | file | caught by |", "|---|---|---|"]
    for one in found:
        by = ", ".join(f"`{name}`" for name in one["caught"]) or f"none: {one['reason']}"
        rows.append(f"| {one['what']} | {one['file']} | {by} |")
    return rows


def merged(found: list[Mutation], path: Path) -> list[Mutation]:
    """What was found, and what the file has of mutations that were not tried, in the order of the list."""
    before = json.loads(path.read_text())["mutations"] if path.exists() else []
    by_name = {one["what"]: one for one in (*before, *found)}
    return [by_name[m["what"]] for m in MUTATIONS if m["what"] in by_name]


def write_rows(path: Path, key: str, rows: list[dict[str, Any]]) -> None:
    """Write {key: rows} with one row a line, so that versions can be compared."""
    lines = ",\n  ".join(json.dumps(row) for row in rows)
    path.write_text(f'{{"{key}": [\n  {lines}\n]}}\n')


def main() -> int:
    """Try the chosen mutations; 0 when each is caught or has a reason, and none has a reason that is caught."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", metavar="WORD")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    chosen = [m for m in MUTATIONS if not options.words or any(word in m["what"] for word in options.words)]
    found: list[Mutation] = []
    with ThreadPoolExecutor(options.jobs) as pool:
        for done in as_completed([pool.submit(attempt, mutation) for mutation in chosen]):
            found.append(one := done.result())
            print(
                f"{len(found)} of {len(chosen)}: {one['what']}: {', '.join(one['caught']) or 'not caught'}", flush=True
            )
            if options.out:
                write_rows(options.out, "mutations", merged([one], options.out))
    wrong = [one["what"] for one in found if bool(one["caught"]) == (one["reason"] is not None)]
    for what in wrong:
        print(f"not as listed: {what}", file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
