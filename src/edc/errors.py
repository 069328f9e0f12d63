"""Mistakes a user can mend: told in one line, exit code 2."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class EdcError(Exception):
    """A mistake in the input. Its text is one line: where, which key or file, which value, what was expected."""


def unknown_name(kind: str, name: str, known: Iterable[str], where: str = "") -> EdcError:
    """An error for a name that is not in a list, offering the nearest known one.

    Args:
        kind: what is named ("recipe", "network", "key", ...).
        name: the name given.
        known: the names that would have been right.
        where: file or section the name stands in.
    """
    names = sorted(known)
    near = get_close_matches(name, names, n=1, cutoff=0.4)
    hint = (
        f"did you mean {near[0]!r}?" if near else f"expected one of: {', '.join(names)}" if names else "there is none"
    )
    return EdcError(f"{where}: unknown {kind} {name!r}; {hint}" if where else f"unknown {kind} {name!r}; {hint}")
