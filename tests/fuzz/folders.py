"""Tries with folders that commands wrote, names that output shows, and settings as TOML."""

from typing import Any

from hypothesis import strategies as st

from fuzz.files import NAMES, PARTS, damage, some, weighted
from fuzz.runner import Try
from fuzz.values import ACTIONS, VALUES
from fuzz.world import GRID, LAST, READING, RUN, TRAINING


def _json_steps(path: str) -> st.SearchStrategy[tuple[Any, ...]]:
    kinds = st.sampled_from(ACTIONS), st.sampled_from(sorted(VALUES))
    if path.endswith(".jsonl"):
        return st.tuples(st.just("lines"), st.just(path), PARTS, PARTS, *kinds)
    return st.tuples(st.just("json"), st.just(path), PARTS, *kinds)


RUN_FILES = ("run/config.json", "run/probes.json", "run/diagnosis.json", "run/log.jsonl", "run/monitor.jsonl")


@st.composite
def run_tries(draw: Any) -> Try:
    """A command on the folder of a run in which something is not as it was left."""
    name = draw(st.sampled_from(RUN_FILES))
    steps = draw(some(weighted((5, _json_steps(name)), (1, damage(name)))))
    commands = (
        *[("bridge", "table", "run")] * 3,
        ("bridge", "table", "run", "--markdown"),
        ("bridge", "table", "run", "--json"),
        ("bridge", "embed", *READING),
        ("bridge", "diagnose", *READING),
        ("bridge", "probe", *READING),
        ("bridge", "pretrain", "--resume", "--out", "run"),
        ("bridge", "pretrain", "--resume", "--out", "run", "--seed", "0"),
    )
    unfinished = draw(st.sampled_from(((), (("remove", LAST),))))
    return Try("run folders", draw(st.sampled_from(commands)), RUN, (*unfinished, *steps))


@st.composite
def sweep_tries(draw: Any, points: tuple[str, ...]) -> Try:
    """`collect` and `sweep` on the folder of a sweep in which something is not as it was left."""
    files = ("grid/sweep.json", "grid/failures.json", *(f"grid/points/{point}/run.json" for point in points))
    other = tuple(f"grid/points/{point}/{name}" for point in points for name in ("sgd.npz", "flow.npz"))
    name = draw(st.sampled_from((*files, *files, *files, *other)))
    steps = draw(some(damage(name) if name in other else weighted((5, _json_steps(name)), (1, damage(name)))))
    plan = (*GRID, "--dry-run")
    commands = (
        ("collect", "grid"),
        ("collect", "grid"),
        ("collect", "grid", "--out", "t.csv"),
        plan,
        (*plan, "--json"),
    )
    return Try("sweep folders", draw(st.sampled_from(commands)), ("grid",), steps)


@st.composite
def space_tries(draw: Any) -> Try:
    """Foreign words where output shows them: names of files, spaces, arrays, folders and classes."""
    word = draw(st.one_of(st.sampled_from(NAMES), st.text(min_size=1, max_size=12)))
    word = word.replace("/", "-").replace("\0", "-").replace(".", "-")
    form = draw(st.sampled_from(((), ("--json",), ("--html",), ("--csv",), ("--out", "out"))))
    json = ("--json",) if form == ("--json",) else ()
    kind = draw(st.integers(0, 5))
    if kind == 0:
        return Try("spaces", ("diagnose", *form, f"--space={word}", "a.npy"), ("a.npy",))
    if kind == 1:
        return Try("spaces", ("diagnose", *form, f"./{word}.npy"), ("a.npy",), (("rename", "a.npy", f"{word}.npy"),))
    if kind == 2:
        return Try(
            "spaces",
            ("diagnose", *form, f"--out=./{word}" if "--out" in form else f"--key={word}", "a.npy"),
            ("a.npy",),
        )
    if kind == 3:
        return Try("spaces", ("bridge", "table", *json, f"./{word}"), ("run",), (("rename", "run", word),))
    if kind == 4:
        steps = (
            ("rename", "images/train/cat", word),
            ("rename", "images/val/cat", word),
            ("text", f"images/val/{word}/9.png", "x"),
        )
        return Try(
            "spaces",
            ("bridge", "embed", *json, "--checkpoint", "run", "--data", "images", "--split", "test"),
            RUN,
            steps,
        )
    return Try("spaces", ("collect", f"./{word}"), ("grid",), (("rename", "grid", word),))


# Settings as TOML has them: rightly, and names and values to be put together at random.
GOOD = ("lr = 0.1", "epochs = 1", "data = 'images'", "strict = true", "seed = 3", "keep = 1", "temperature = 0.5")
WORDS = [
    "lr",
    "epochs",
    "data",
    "preset",
    "strict",
    "seed",
    "d0",
    "arch",
    "out-dim",
    "momentum",
    "a.b",
    "[x]",
    "lr.x",
    "keep",
]
WORTHS = [
    "1",
    "-1",
    "1e300",
    "nan",
    "inf",
    "[]",
    "{}",
    "true",
    "07",
    "0x7fffffffffffffff",
    "1979-05-27",
    "'digits'",
    "'x'",
    "1_0",
    "{a={b=1}}",
    "[1,'a']",
    "0.5",
]
ODD_WORTHS = ("", "9" * 30, '"\\u001b[31m"', '"""\na"""', "[" * 3000, "{a=" * 1000, "'" + "x" * 3000 + "'")


@st.composite
def settings_tries(draw: Any) -> Try:
    """`bridge pretrain --config` of changed TOML."""
    odd = st.tuples(st.sampled_from(WORDS), st.sampled_from((*WORTHS, *WORTHS, *ODD_WORTHS))).map(" = ".join)
    lines = draw(st.lists(weighted((2, st.sampled_from(GOOD)), (1, odd)), max_size=3, unique=True))
    mark = draw(st.sampled_from(("", "", "", "\ufeff", "\0")))
    steps = [("text", "recipe.toml", mark + "\n".join(lines) + "\n")]
    if draw(st.integers(0, 3)) == 0:
        steps.append(draw(damage("recipe.toml")))
    rate = TRAINING.index("--lr")  # an option goes before the file's setting
    arguments = (
        "bridge",
        "pretrain",
        *TRAINING[:rate],
        *TRAINING[rate + 2 :],
        "--config",
        "recipe.toml",
        "--out",
        "out",
    )
    return Try("settings", arguments, ("images", "recipe.toml"), tuple(steps))
