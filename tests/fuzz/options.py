"""Command lines: every option that click knows of, with values it should take and values it should not."""

import re
from collections.abc import Iterator
from typing import Any

import click
from helpers.programs import changed
from hypothesis import strategies as st

from fuzz.runner import Try
from fuzz.world import BASES, NETWORK

LONG = "x" * 5000
TEXTS = (
    *(
        "",
        " ",
        "\t",
        "\n",
        "../",
        "..",
        ".",
        "-",
        "--",
        "=",
        ",",
        ":",
        ",,",
        "::",
        "a:b:c",
        "a=b",
        "a,b",
        "{}",
        "[]",
        "%s",
    ),
    *(
        "{0}",
        "None",
        "null",
        "true",
        "é",
        "日本",
        "\u202egnp",
        "🦊",
        "\x1b[31mred",
        "a\rb",
        "a\nb",
        "\x9b31m",
        "\udcff",
    ),
    *("\x07", "~", "$HOME", "*", "'", '"', "\\", "/dev/null", "/dev/zero", "a.npy", "a.npy/x", LONG, "../" * 40 + "a"),
)
NUMBERS = (
    *(
        "0",
        "-1",
        "1",
        "2",
        "3",
        "-0",
        "1e300",
        "-1e300",
        "1e-300",
        "nan",
        "inf",
        "-inf",
        "1e3",
        "0.5",
        "1_0",
        "٣",
        "0x10",
    ),
    *("2147483648", "9223372036854775807", "9223372036854775808", "-9223372036854775808", "1" + "0" * 40, "9" * 5000),
    *("1e999", "1,5", "1.5", "+1", " 1 ", "1e-10", "0.999", "100000", "5e-324"),
)
LISTS = (
    "1,2",
    "0:1:3",
    "1:2:2:log",
    "1:2:0",
    "0:1:-1",
    "1:2:1e9",
    "0:1:3:log",
    "nan:1:3",
    "1:inf:2",
    "1:2:3:4:5",
    "1,,2",
    "1:2",
)
FORMS = (*("spaced",) * 8, "joined", "joined", "bare", "empty", "twice")
LEFT_OUT = ("--compile",)  # a compiler of C++ runs for a minute, whatever the sizes
# Values that options of these names take, beside what their help says.
TAKEN: dict[str, tuple[str, ...]] = {
    "names": ("lemma-1", "lemma-2", "lemma-3", "riccati"),
    "dynamics": ("sgd", "flow", "population", "sgd,population", "sgd,sgd"),
    "arch": ("resnet10-narrow", "resnet18", "vit_tiny_patch16_224", "mobilenetv3_small_050", "convnext_atto"),
    "device": ("cpu", "cuda", "cuda:0", "cpu:0", "mps", "meta"),
    "data": ("images", "digits", "images/train", "run"),
    "checkpoint": ("run", "run/checkpoints", "images"),
    "projector": ("mlp", "none", "low-rank", "diagonal"),
}


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """All commands below a group that are no groups, each with its words."""
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


def _valid(option: click.Parameter) -> tuple[str, ...]:
    """Values that an option says it takes."""
    metavar = re.sub(r",\.\.$", "", option.metavar or "")
    found = TAKEN.get(option.name or "", ())
    if "|" in metavar:
        found += tuple(metavar.split("|"))
    if isinstance(option.type, click.Path):
        found += ("out", "a.npy", "b.npy", "new/deep/out")
    if isinstance(option.type, click.types.IntParamType) or metavar in ("INT", "INTEGER"):
        found += ("1", "2", "3", "4", "7")
    if isinstance(option.type, click.types.FloatParamType) or metavar == "FLOAT":
        found += ("0.1", "0.5", "1", "2")
    match = re.search(r"One of ([^.]+)\.", getattr(option, "help", None) or "")
    return found + (tuple(match[1].split(", ")) if match else ())


@st.composite
def option_words(draw: Any, option: click.Option) -> tuple[str, ...]:
    """An option as it stands in a command line, rightly or wrongly."""
    names = [name for name in (*option.opts, *option.secondary_opts) if name not in LEFT_OUT]
    name = draw(st.sampled_from(names))
    if option.is_flag:
        return draw(st.sampled_from([(name,), (name,), (name, name), (f"{name}=1",), (f"{name}=",)]))
    valid = _valid(option)
    pools = [
        st.sampled_from(TEXTS),
        st.sampled_from(NUMBERS),
        st.text(max_size=8).filter(lambda text: "\0" not in text),
    ]
    if (option.metavar or "").endswith(",.."):
        pools.append(st.sampled_from(LISTS))
    if isinstance(option.type, click.types.IntParamType | click.types.FloatParamType):
        pools = [pools[1]] * 5 + pools  # what is no number is refused alike everywhere
    likely = draw(st.integers(0, 2)) and valid
    value = draw(st.sampled_from(valid) if likely else draw(st.sampled_from(pools)))
    form = draw(st.sampled_from(FORMS))
    words = {"spaced": (name, value), "joined": (f"{name}={value}",), "bare": (name,), "empty": (f"{name}=",)}
    return words.get(form) or (name, value, name, draw(st.sampled_from(valid or TEXTS)))


@st.composite
def option_tries(draw: Any, root: click.Group, words: tuple[str, ...] | None = None) -> Try:
    """A valid command line of a command with one to four options put in or changed."""
    listed = dict(commands(root))
    words = words or draw(st.sampled_from(sorted(listed)))
    options = [p for p in listed[words].params if isinstance(p, click.Option)]
    base, needs = BASES.get(words, ((), ()))
    choice = st.lists(st.sampled_from(options), min_size=1, max_size=4, unique_by=lambda option: option.name)
    chosen = draw(choice) if options else []
    added = [draw(option_words(option)) for option in chosen]
    arguments = [*words, *changed(base, *(word for words_ in added for word in words_))]
    odd = draw(st.integers(0, 19))
    if odd == 0 and base:
        del arguments[draw(st.integers(len(words), len(arguments) - 1))]
    elif odd == 1:
        arguments.insert(draw(st.integers(0, len(arguments))), draw(st.sampled_from(TEXTS)))
    if "--trust-checkpoint" in arguments and words[0] != "bridge":
        arguments.remove("--trust-checkpoint")
    return Try("options", tuple(arguments), needs, large=words[-1] == "check" or any(map(_is_large, arguments)))


def _is_large(word: str) -> bool:
    """Whether a word asks for many of something, a long time or data and a network of usual size."""
    if word in (*TAKEN["arch"], "digits") and word not in NETWORK:
        return True
    for part in re.split(r"[=,:]", word):
        try:
            if abs(float(part)) >= 100 or 0 < abs(float(part)) < 1e-3:
                return True
        except (ValueError, OverflowError):
            continue
    return False
