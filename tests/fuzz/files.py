"""Tries with files: valid ones, changed in one to three places, and the commands that read them."""

from typing import Any

from hypothesis import strategies as st

from fuzz.pictures import PICTURES
from fuzz.runner import Try
from fuzz.tensors import ARRAYS, CHANGES, MEMBERS, NEW
from fuzz.world import ARRAYS as ARRAY_FILES
from fuzz.world import CHECKPOINTS, EARLIER, LABELS, LAST, NETWORK, RUN, SHARD, TABLES, TRAINING

PARTS = st.sampled_from([k / 1000 for k in range(1000)])  # floats would be drawn near 0 mostly
BIG = ("0", "-1", "99", "4294967296", "9" * 18, "1" * 5000, "1e9", "nan")
NAMES = (
    "a b",
    "a\nb",
    "\x1b[31mred",
    "é日本",
    "\u202egnp",
    "x" * 200,
    "-rf",
    "~",
    "a:b",
    "%s{0}",
    "'\"",
    "\x9b31m",
    "\udcff",
)
SUFFIXES = (".npy", ".npz", ".pt", ".pth", ".ckpt", ".safetensors", ".bin", ".csv", "", ".PT", ".txt", ".json")
TEXTS = (
    "",
    " ",
    "null",
    "[]",
    "{}",
    "0",
    '"a"',
    "nan",
    '{"a":' * 2000,
    "\ufeff{}",
    "\x1b[31m",
    "a = [",
    "é",
)


def weighted(*choices: tuple[int, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    """One of several strategies, by weight; `one_of` would weigh by the number of their own alternatives."""
    return st.sampled_from([choice for weight, choice in choices for _ in range(weight)]).flatmap(lambda choice: choice)


def damage(path: str) -> st.SearchStrategy[tuple[Any, ...]]:
    """A step that changes bytes, or puts something that is no regular file in a file's place."""
    where = st.just(path)
    return st.one_of(
        st.tuples(st.just("flip"), where, PARTS, st.integers(0, 7)),
        st.tuples(st.just("flip"), where, PARTS.map(lambda part: part**4), st.integers(0, 7)),  # in the header
        st.tuples(st.just("cut"), where, PARTS),
        st.tuples(st.just("drop"), where, PARTS, PARTS),
        st.tuples(st.just("swap"), where, PARTS, PARTS),
        st.tuples(st.just("number"), where, PARTS, st.sampled_from(BIG)),
        st.tuples(st.just("append"), where, st.sampled_from((1, 100, 100_000))),
        st.tuples(st.just("before"), where, st.sampled_from(("\ufeff", "\0", "PK"))),
        st.tuples(st.just("text"), where, st.sampled_from(TEXTS)),
        st.tuples(st.just("text"), where, st.just("["), st.just(60_000)),
        st.tuples(st.sampled_from(("empty", "fifo", "folder", "remove")), where),
        st.tuples(st.just("link"), where, st.sampled_from(("zero", "null", "random", "self", "gone", "a.npy"))),
    )


def _array_steps(path: str) -> st.SearchStrategy[tuple[Any, ...]]:
    suffix = path.rpartition(".")[2]
    packed = st.sampled_from(("plain", "twice", "two", "bomb") if suffix == "npz" else ("plain",))
    odd = st.tuples(st.just("array"), st.just(path), st.sampled_from(sorted(ARRAYS)), st.sampled_from(MEMBERS), packed)
    if path in TABLES:
        return damage(path)
    if suffix in ("npy", "npz"):
        return weighted((2, odd), (1, damage(path)))
    return weighted((2, odd), (2, _tensor_steps(path)), (1, damage(path)))


def _tensor_steps(path: str) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.sampled_from(CHANGES).flatmap(
        lambda action: st.tuples(
            st.just("tensors"), st.just(path), PARTS, st.just(action), st.sampled_from(NEW[action])
        )
    )


def some(steps: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    """One or two of them."""
    return st.lists(steps, min_size=1, max_size=2).map(tuple)


@st.composite
def array_tries(draw: Any) -> Try:
    """`diagnose` of a changed array, alone, with a view, or as one."""
    name = draw(st.sampled_from((*ARRAY_FILES, *TABLES)))
    steps = draw(some(_array_steps(name)))
    if draw(st.integers(0, 7)) == 0:
        changed = draw(st.sampled_from(NAMES)) + draw(st.sampled_from(SUFFIXES))
        steps, name = (*steps, ("rename", name, changed)), changed
    options = draw(
        st.sampled_from(
            ((), (), ("--key", "z"), ("--json",), ("--svd",), ("--loss", "ntxent"), ("--html",), ("--csv",))
        )
    )
    both = ("b.npy", "--positives", "b.npy", "--inputs", name, "--input-positives", name)
    files = draw(st.sampled_from(((name,), (name, "--positives", "b.npy"), ("b.npy", "--positives", name), both)))
    saved = draw(st.sampled_from(((), (), ("--out", "out"))))
    files = files if not files[0].startswith("-") else ("--", files[0])
    return Try("arrays", ("diagnose", *options, *saved, *files), (*ARRAY_FILES, *TABLES, "b.npy"), steps)


@st.composite
def data_tries(draw: Any) -> Try:
    """`diagnose` of a folder of shards one of which is changed, or within classes whose labels are."""
    if draw(st.booleans()):
        name = f"shards/part-{draw(st.integers(0, 2))}.npy"
        views = draw(st.sampled_from(((), ("--positives", "shards"))))
        return Try("data", ("diagnose", "shards", *views), ("shards",), draw(some(_array_steps(name))))
    name = draw(st.sampled_from(LABELS))
    steps = draw(some(damage(name)))
    return Try("data", ("diagnose", "a.npy", "--by", name), ("a.npy", *LABELS), steps)


@st.composite
def checkpoint_tries(draw: Any) -> Try:
    """`bridge embed` and its like of a changed checkpoint, one of ours or of others."""
    own = draw(st.booleans())
    resumed = own and draw(st.integers(0, 3)) == 0
    name = EARLIER if resumed else LAST if own else draw(st.sampled_from(CHECKPOINTS))
    steps = draw(some(weighted((4, _tensor_steps(name)), (1, damage(name)))))
    if resumed:
        steps = (("remove", LAST), *steps)
        return Try("checkpoints", ("bridge", "pretrain", "--resume", "--out", "run"), RUN, steps)
    if draw(st.integers(0, 7)) == 0 and not own:
        changed = draw(st.sampled_from(NAMES)) + draw(st.sampled_from(SUFFIXES))
        steps, name = (*steps, ("rename", name, changed)), changed
    given = (
        ()
        if own
        else draw(st.sampled_from((NETWORK, NETWORK, ("--arch", "resnet10-narrow"), (), (*NETWORK, "--d0", "2"))))
    )
    size = () if own else ("--image-size", "16")
    command = draw(st.sampled_from(("embed", "embed", "embed", "diagnose", "probe")))
    where = "run" if own and draw(st.booleans()) else name
    return Try(
        "checkpoints",
        ("bridge", command, f"--checkpoint={where}", "--data", "images", *size, *given),
        (*RUN, *CHECKPOINTS),
        steps,
    )


ENTRIES = (
    ".ipynb_checkpoints",
    "__MACOSX",
    "@eaDir",
    "lost+found",
    ".DS_Store",
    "Thumbs.db",
    "empty",
    "._0.png",
    "1.JPG",
    "2.tiff",
    "3.png",
    *NAMES,
)


LINKS = ("self", "parent", "gone", "zero", "../../train", "../../..")
REMOVED = ("images/train/cat", "images/val", "images/train", "images/val/dog", "images")
COPIES = ("cifar-10-batches-py", "../a", ".hidden", "test")


@st.composite
def image_tries(draw: Any) -> Try:
    """Image folders with what should not be in them."""
    places = st.sampled_from(
        ("images", "images/train", "images/train/cat", "images/val/dog", "images/train/cat/deep/er")
    )
    file = st.sampled_from(("images/train/cat/0.png", "images/val/dog/1.png", "images/train/dog/4.png"))
    entry = st.tuples(places, st.sampled_from(ENTRIES)).map("/".join)
    steps = draw(
        st.lists(
            weighted(
                (4, st.tuples(st.just("picture"), file, st.sampled_from(sorted(PICTURES)))),
                (3, st.tuples(st.just("picture"), entry, st.sampled_from(sorted(PICTURES)))),
                (1, file.flatmap(damage)),
                (1, st.tuples(st.sampled_from(("fifo", "folder")), entry)),
                (1, st.tuples(st.just("link"), entry, st.sampled_from(LINKS))),
                (1, st.tuples(st.just("remove"), st.sampled_from(REMOVED))),
                (
                    1,
                    st.tuples(
                        st.just("copy"), st.sampled_from(("images/train/cat", "images/train")), st.sampled_from(COPIES)
                    ),
                ),
            ),
            min_size=1,
            max_size=3,
        ).map(tuple)
    )
    data = draw(st.sampled_from(("images", "images", "images", "images/train", "images/train/cat")))
    strict = draw(st.sampled_from(((), (), ("--strict",))))
    reading = ("--checkpoint", "run", "--data", data, *strict)
    commands = (
        *[("bridge", "embed", *reading)] * 3,
        ("bridge", "embed", *reading, "--views", "one-sided"),
        ("bridge", "probe", *reading),
        ("bridge", "diagnose", *reading),
        ("bridge", "pretrain", *TRAINING, "--data", data, *strict, "--out", "out"),
        ("bridge", "pretrain", *TRAINING, "--data", data, "--pipeline", "mixed", *strict, "--out", "out"),
    )
    return Try("image folders", draw(st.sampled_from(commands)), RUN, steps)


@st.composite
def shard_tries(draw: Any) -> Try:
    """A shard of webdataset that is damaged."""
    strict = draw(st.sampled_from(((), ("--strict",))))
    commands = (
        ("bridge", "embed", "--checkpoint", "run", "--data", SHARD, *strict),
        ("predict", "--data", SHARD, "--image-size", "8", "--directions", "4", "--loss", "spectral", "--out", "out"),
    )
    flip = st.tuples(st.just("flip"), st.just(SHARD), PARTS, st.integers(0, 7))
    steps = draw(weighted((1, st.tuples(flip)), (2, some(damage(SHARD)))))
    return Try("shards", draw(st.sampled_from(commands)), ("run", SHARD), steps)
