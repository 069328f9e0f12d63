"""Pages of tables as Markdown, LaTeX and HTML.

A page is written once, with the marks of Markdown in its text: ``**best**`` and ``[^1]`` for a footnote. The other two
forms translate those two marks and escape everything else.
"""

from __future__ import annotations

import html as entities
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

BOLD, NOTE = re.compile(r"\*\*(.+?)\*\*"), re.compile(r"\[\^(\d+)\]")
TEX = {"\\": r"\textbackslash{}", "±": r"$\pm$", "^": r"\^{}", "~": r"\~{}"}
TEX |= {"<": r"\textless{}", ">": r"\textgreater{}"}
TEX |= {sign: f"\\{sign}" for sign in "&%$#_{}"}
STYLE = (
    ":root{color-scheme:light dark;font-family:system-ui,sans-serif}body{margin:1rem;line-height:1.4}"
    "table{border-collapse:collapse;display:block;overflow-x:auto}th,td{padding:.2rem .6rem;text-align:left}"
    "thead tr{border-bottom:1px solid}tbody tr:hover{background:color-mix(in srgb,currentColor 8%,transparent)}"
)


@dataclass(frozen=True)
class Section:
    """One table with what is said about it."""

    title: str = ""
    frame: pd.DataFrame | None = None
    """The cells as text."""
    text: tuple[str, ...] = ()
    """A paragraph below it, line by line."""
    items: tuple[str, ...] = ()
    """A list below that."""


@dataclass(frozen=True)
class Page:
    """All there is to say about one table of results."""

    title: str
    sections: list[Section] = field(default_factory=list)
    footnotes: tuple[str, ...] = ()
    """In the order of their numbers, the first of which is 1."""


def table(head: Iterable[str], body: Iterable[Iterable[Any]]) -> pd.DataFrame:
    """Cells as text, nothing where there is None."""
    cells = [["" if cell is None else str(cell) for cell in line] for line in body]
    return pd.DataFrame(cells, columns=list(head), dtype=object)


def markdown(page: Page) -> str:
    """With tables and footnotes as GitHub reads them."""
    lines = [f"# {page.title}", ""]
    for section in page.sections:
        lines += [f"## {section.title}", ""] if section.title else []
        if section.frame is not None:
            head = list(section.frame.columns)
            grid = [head, ["---"] * len(head), *section.frame.to_numpy().tolist()]
            lines += [*("| " + " | ".join(line) + " |" for line in grid), ""]
        lines += [*section.text, ""] if section.text else []
        lines += [*(f"- {item}" for item in section.items), ""] if section.items else []
    lines += [f"[^{number}]: {text}" for number, text in enumerate(page.footnotes, 1)]
    return "\n".join(lines + ([""] if page.footnotes else []))


def latex(page: Page) -> str:
    """Tables to be put into a document with ``\\input``; it needs booktabs and graphicx."""
    lines = [f"% {page.title}. Made by `edc tables`; needs \\usepackage{{booktabs,graphicx}}."]
    for section in page.sections:
        title = _tex(f"{page.title}: {section.title}" if section.title else page.title)
        text = [_tex(line) for line in section.text]
        if section.frame is not None:
            written = _translated(section.frame, _tex).to_latex(
                index=False, escape=False, column_format="l" * section.frame.shape[1]
            )
            lines += [r"\begin{table}\centering", rf"\caption{{{title}}}", r"\resizebox{\linewidth}{!}{%"]
            lines += [written.strip() + "}", *([r"\par\smallskip\footnotesize", *text] if text else []), r"\end{table}"]
        elif section.text or section.items:
            lines += [rf"\paragraph{{{title}}}", *text]
        if section.items:
            lines += [r"\begin{itemize}", *(rf"\item {_tex(item)}" for item in section.items), r"\end{itemize}"]
    if page.footnotes:
        lines += [r"\begin{enumerate}\footnotesize", *(rf"\item {_tex(text)}" for text in page.footnotes)]
        lines += [r"\end{enumerate}"]
    return "\n".join([*lines, ""])


def fragment(page: Page) -> str:
    """HTML to be put into a page of one's own."""
    lines = [f"<h1>{_html(page.title)}</h1>"]
    for section in page.sections:
        lines += [f"<h2>{_html(section.title)}</h2>"] if section.title else []
        if section.frame is not None:
            frame = _translated(section.frame, _html)
            lines.append(frame.to_html(index=False, escape=False, border=0, justify="left", na_rep=""))
        lines += [f"<p>{_html(' '.join(section.text))}</p>"] if section.text else []
        if section.items:
            lines += ["<ul>", *(f"<li>{_html(item)}</li>" for item in section.items), "</ul>"]
    if page.footnotes:
        lines += ['<ol class="footnotes">', *(f"<li>{_html(text)}</li>" for text in page.footnotes), "</ol>"]
    return "\n".join([*lines, ""])


def html(page: Page) -> str:
    """A document that needs nothing else: light or dark as its reader's system is."""
    head = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>{_html(page.title)}</title><style>{STYLE}</style></head><body>",
    ]
    return "\n".join([*head, fragment(page) + "</body></html>", ""])


def _translated(frame: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    return frame.map(change).rename(columns=change)


def _tex(text: str) -> str:
    parts = [(BOLD, r"\\textbf{\1}"), (NOTE, r"\\textsuperscript{\1}")]
    return _marked(text, lambda plain: "".join(TEX.get(sign, sign) for sign in plain), parts)


def _html(text: str) -> str:
    return _marked(text, entities.escape, [(BOLD, r"<strong>\1</strong>"), (NOTE, r"<sup>\1</sup>")])


def _marked(text: str, escape: Callable[[str], str], marks: list[tuple[re.Pattern[str], str]]) -> str:
    """Escape the text and translate the marks; those of a footnote survive the escaping as private signs."""
    held = NOTE.sub("\ue000\\1\ue001", text)
    escaped = escape(held).replace("\ue000", "[^").replace("\ue001", "]")
    for pattern, replacement in marks:
        escaped = pattern.sub(replacement, escaped)
    return escaped
