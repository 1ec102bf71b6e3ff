"""The topics of `dyncollapse help`: one Markdown file each, in the folder beside this one."""

from pathlib import Path

FOLDER = Path(__file__).parent / "topics"


def topic_names() -> list[str]:
    """The names of all topics, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.md"))


def topic_title(name: str) -> str:
    """What a topic is about: the heading of its text."""
    return topic_text(name).partition("\n")[0]


def topic_text(name: str) -> str:
    """The text of a topic, without the mark of its heading."""
    return (FOLDER / f"{name}.md").read_text(encoding="utf-8").removeprefix("# ")
