"""HTML and SVG from elements: every text and every attribute is escaped here, and nowhere else."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape

VOID = {"img", "link", "meta"}
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


class Html(str):
    """Text that is markup already and goes into a page as it is."""

    __slots__ = ()


def text(value: object) -> Html:
    """Any value as text of a page; characters HTML does not have become a question mark."""
    return value if isinstance(value, Html) else Html(escape(UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", str(value))))


def element(name: str, /, *children: object, **attributes: object) -> Html:
    """One element with what is in it.

    Args:
        name: of the element.
        children: text, which is escaped, or elements; None is left out.
        attributes: by name, with ``_`` for ``-`` and one ``_`` at the end where Python has a word of that name;
            None and False are left out, True has no value.
    """
    given = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{text(str(value))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in VOID:
        return Html(f"<{name}{given}>")
    return Html(f"<{name}{given}>{join(children)}</{name}>")


def join(children: Iterable[object], between: str = "") -> Html:
    """Elements and texts one after the other."""
    return Html(text(between).join(text(child) for child in children if child is not None))
