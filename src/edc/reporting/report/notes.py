"""Footnotes of a table as links: what the sources contradict, beside the figure it is about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edc.reporting.footnotes import FOOTNOTES
from edc.reporting.report.markup import Html, element, join


class Notes:
    """The footnotes of one table, numbered in the order in which their marks are asked for.

    Args:
        table: its name.
    """

    def __init__(self, table: str) -> None:
        self.table = table
        self.texts: list[str] = []

    def marks(self, row: Mapping[str, Any]) -> Html | None:
        """References to all that is to be said of a row's figure of the paper; None where there is nothing."""
        mine = [note.text for note in FOOTNOTES if note.fits(self.table, row)]
        self.texts += [text for text in dict.fromkeys(mine) if text not in self.texts]
        numbers = sorted({self.texts.index(text) + 1 for text in mine})
        links = [element("a", number, href=f"#{self._name(number)}", aria_label=f"note {number}") for number in numbers]
        return element("sup", join(links, " ")) if links else None

    def below(self) -> Html | None:
        """The footnotes whose marks were asked for; None where there is none."""
        items = [element("li", text, id=self._name(number)) for number, text in enumerate(self.texts, 1)]
        return element("ol", *items, class_="notes") if items else None

    def _name(self, number: int) -> str:
        return f"{self.table}-note-{number}"
