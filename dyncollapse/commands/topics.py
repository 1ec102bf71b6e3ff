"""The topics of `dyncollapse help`: one Markdown file each, in the folder beside this one."""

from pathlib import Path

FOLDER = Path(__file__).parent / "topics"

# Words of reports, pages and papers that lead to the topic which explains them.
EXPLAINED_IN = {
    "collapse": (
        "alive", "cliff", "collapsed", "dead", "decayed", "dimension", "dimensions", "fate", "fates",
        "structural", "suppressed", "unexplained", "unresolved", "unseen", "verdict", "waiting",
    ),
    "causes": (
        "cause", "implicit regularization", "implicit-regularization", "inputs", "mechanism", "mechanisms",
        "positives", "strong augmentation", "strong-augmentation", "warning", "warnings", "weight-decay",
        "width",
    ),
    "rho": ("augmentation over data", "sigma0", "sigma1", "threshold"),
    "measures": (
        "alpha-req", "alpha_req", "effective rank", "effective_rank", "interval", "intervals", "lidar",
        "noise floor", "participation ratio", "participation_ratio", "participation_ratio_unbiased", "rank",
        "rankme", "shared signal", "signal rank", "signal_rank", "spectrum", "stable rank", "stable_rank",
    ),
    "views": ("negative", "negatives", "one-sided", "positive", "two-sided", "view"),
    "spaces": (
        "backbone", "embedding", "embeddings", "encoder", "monitor", "normalisation", "normalised",
        "normalized", "projector", "representation", "representations", "space",
    ),
    "losses": (
        "barlow", "barlow-normalised", "byol", "dot", "infonce", "invariance", "loss", "nt-xent", "ntxent", "simsiam",
        "spectral", "temperature", "vcreg", "vicreg",
    ),
    "time": ("escape", "escape time", "flow time"),
}  # fmt: skip


def topic_names() -> list[str]:
    """The names of all topics, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.md"))


def topic_of(word: str) -> str | None:
    """The topic of this name, or the one that explains this word; None if there is none."""
    if word in topic_names():
        return word
    return next((topic for topic, words in EXPLAINED_IN.items() if word.lower() in words), None)


def explained_words() -> list[str]:
    """The words that lead to a topic of another name."""
    return [word for words in EXPLAINED_IN.values() for word in words]


def topic_title(name: str) -> str:
    """What a topic is about: the heading of its text."""
    return topic_text(name).partition("\n")[0]


def topic_text(name: str) -> str:
    """The text of a topic, without the mark of its heading."""
    return (FOLDER / f"{name}.md").read_text(encoding="utf-8").removeprefix("# ")
