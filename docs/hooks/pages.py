"""A hook of MkDocs: write the pages of reference from the command line and from the public names."""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from mkdocs.structure.files import File, Files

from dyncollapse.commands.help_pages import GroupedCommand, commands_below
from dyncollapse.commands.main import main
from dyncollapse.commands.topics import topic_names, topic_text

ROOT = Path(__file__).parent.parent.parent
GALLERY = ROOT / "figures" / "gallery"
DOCUMENT = re.compile(r"\bdocs/((?:explanation|how-to|reference)/[\w-]+|results|design|tutorial)\.md\b")
PICTURE = re.compile(r"\((?:\.\./)+figures/gallery/([\w-]+\.png)\)")
NOTATION = """Where a signature says `Tensor`, NumPy arrays and lists of numbers are taken, too, and tensors come back.
`Float[Tensor, "*runs n d"]` is an array of floating-point numbers whose last axes are n and d, with any axes for runs
in front. `Weights` is a sequence of such arrays, one (*runs, out, in) per layer, the first layer first. Times are flow
times, learning rate x steps."""
# The wings whose public names each page shows, and its first words.
PAGES = {
    "toy": (("model", "dynamics"), "Toy networks", "Gaussian data, networks, losses; SGD and gradient flows."),
    "theory": (
        ("theory", "claims"),
        "Theory",
        "Closed forms: rest points, thresholds, escape times, alignment, velocities; and their checks.",
    ),
    "simulation": (
        ("simulation", "sweeps", "runtime"),
        "Simulations and sweeps",
        "Settings, verdicts, grids of simulations and where they run.",
    ),
    "diagnostics": (("diagnostics",), "Diagnostics", "Which dimensions of given embeddings collapsed, and why."),
    "bridge": (("bridge",), "Bridge", "Real encoders: pretraining, embeddings, probes, other people's checkpoints."),
}


def public_names(package: Path) -> Iterator[tuple[str, str]]:
    """Name and full path of everything that a package exports, as its stub lists it."""
    parent = ".".join(package.relative_to(ROOT).parts)
    for node in ast.parse((package / "__init__.pyi").read_text()).body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield alias.name, f"{parent}.{node.module}.{alias.name}"


def api_page(name: str) -> str:
    """Page with the docstring of every public name in some wings, a heading for each module."""
    wings, title, summary = PAGES[name]
    package = "dyncollapse.bridge" if name == "bridge" else "dyncollapse"
    lines = [f"# {title}", "", f"{summary} `from {package} import NAME` imports each of these names.", ""]
    lines += [] if name == "bridge" else [NOTATION, ""]
    for _, path in sorted(_exported(wings), key=lambda pair: _place(pair[1], wings)):
        lines += [f"::: {path}", ""]
    return "\n".join(lines)


def _place(path: str, wings: tuple[str, ...]) -> tuple[int, str, str]:
    module, _, name = path.rpartition(".")
    return wings.index(path.split(".")[1]), module, name.lower()


def _exported(wings: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    packages = [ROOT / "dyncollapse", ROOT / "dyncollapse" / "bridge"]
    for package in packages:
        for name, path in public_names(package):
            if path.split(".")[1] in wings:
                yield name, path


def commands_page() -> str:
    """Page of every command: the question that it answers, an example, its options by group."""
    lines = ["# Commands", "", "What `--help` prints, as a page. [Settings](settings.md) has the ranges.", ""]
    for words, command in commands_below(main):
        if isinstance(command, GroupedCommand):
            lines += _command(command, click.Context(command, info_name=f"dyncollapse {words}"))
    return "\n".join(lines)


def topics_page() -> str:
    """Page of the topics of `dyncollapse help`, as they are printed."""
    lines = ["# Terms", "", "What `dyncollapse help TOPIC` prints.", ""]
    for name in topic_names():
        title, _, rest = topic_text(name).partition("\n")
        lines += [f"## {name}", "", f"**{title}**", "", "```text", rest.strip(), "```", ""]
    return "\n".join(lines)


def _command(command: GroupedCommand, context: click.Context) -> Iterator[str]:
    path = context.command_path
    yield from (f"## {path}", "", "```text", " ".join([path, *command.collect_usage_pieces(context)]), "```", "")
    yield from (inspect.cleandoc(command.help or "").replace("\b\n", ""), "")
    yield from ("```sh", command.example, "```", "")
    links = ", ".join(f"[{topic}](topics.md#{topic})" for topic in command.topics)
    yield from (f"Terms: {links}.", "")
    for heading, rows in command.option_groups(context).items():
        yield from (f"**{heading}**", "", "| option | meaning |", "|---|---|")
        yield from (f"| <code>{_cell(names)}</code> | {_cell(text)} |" for names, text in rows)
        yield ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def on_files(files: Files, config: Any, **_rest: Any) -> Files:
    """Add the pages that are written from the code."""
    written = {f"reference/{name}.md": api_page(name) for name in PAGES}
    written |= {"reference/commands.md": commands_page(), "reference/topics.md": topics_page()}
    for name in ("CONTRIBUTING", "CHANGELOG"):  # they stand where people look for them, beside the README
        text = (ROOT / f"{name}.md").read_text().replace("](docs/", "](")
        written[f"{name.lower()}.md"] = re.sub(
            r"\]\((CHANGELOG|CONTRIBUTING)\.md\)", lambda m: f"]({m[1].lower()}.md)", text
        )
    for path, text in written.items():
        files.append(File.generated(config, path, content=text))
    for picture in sorted(GALLERY.glob("*.png")):
        files.append(File.generated(config, f"figures/{picture.name}", abs_src_path=str(picture)))
    return files


def on_page_content(content: str, page: Any, **_rest: Any) -> str:
    """Make links of the documents that docstrings and terms name by their path in the repository."""
    up = "../" * page.file.src_uri.count("/")
    parts = re.split(r"(<[^>]*>)", content)  # tags stand at odd places
    parts[::2] = [DOCUMENT.sub(rf'<a href="{up}\1.html">docs/\1.md</a>', text) for text in parts[::2]]
    return "".join(parts)


def on_page_markdown(markdown: str, page: Any, **_rest: Any) -> str:
    """Show the gallery's pictures, which stand outside the folder of the documents."""
    up = "../" * page.file.src_uri.count("/")
    return PICTURE.sub(rf"({up}figures/\1)", markdown)
