"""A hook of MkDocs: write the mathematics of a page as MathML, which browsers draw without a script."""

import html
import re
from typing import Any

import latex2mathml.converter

SPAN = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
BLOCK = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.DOTALL)
# What no browser draws as it stands, in words that MathML has.
SYNONYMS = {r"\lvert": "|", r"\rvert": "|", r"\lVert": r"\|", r"\rVert": r"\|", r"\ast": "*"}


def on_page_content(content: str, **_rest: Any) -> str:
    """Replace the formulas of a page, once its Markdown is HTML."""
    content = BLOCK.sub(lambda match: _mathml(match[1], "block"), content)
    return SPAN.sub(lambda match: _mathml(match[1], "inline"), content)


def _mathml(escaped: str, display: str) -> str:
    formula = html.unescape(escaped).strip()
    for name, plain in SYNONYMS.items():
        formula = re.sub(re.escape(name) + r"(?![A-Za-z])", lambda _, plain=plain: plain, formula)
    return latex2mathml.converter.convert(formula, display=display)
