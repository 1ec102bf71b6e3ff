"""A hook of MkDocs: write the mathematics of a page as MathML, which browsers draw without a script."""

import html
import re
import unicodedata
from typing import Any

import latex2mathml.converter

DOT = re.compile(r"<mover>(?:<mrow>)?<mi>([A-Za-z])</mi>(?:</mrow>)?<mo>&#x002D9;</mo></mover>")
COMBINING_DOT = "\u0307"
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
    return DOT.sub(_dotted, latex2mathml.converter.convert(formula, display=display))


def _dotted(match: re.Match[str]) -> str:
    """A letter with its dot as one character: without a font for mathematics, browsers lose a dot of its own."""
    return f'<mi style="font-style: italic">{unicodedata.normalize("NFC", match[1] + COMBINING_DOT)}</mi>'
