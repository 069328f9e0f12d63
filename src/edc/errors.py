"""Mistakes a user can correct: described in one line, exit code 2."""

from __future__ import annotations

import os
from collections.abc import Iterable
from difflib import get_close_matches

LISTED = 8
"""Names an error lists at most."""
NEAR = 2 / 3
"""How similar a name must be to be suggested; 1 is equal."""
ON, OFF = ("", "on", "true", "1", "yes"), ("off", "false", "0", "no")


class EdcError(Exception):
    """A mistake in the input. Its text is one line: where, which key or file, which value, what was expected."""


def unknown_name(kind: str, name: str, known: Iterable[str], where: str = "") -> EdcError:
    """An error for a name that is not in a list, with the one that was probably meant, or those there are.

    Args:
        kind: what is named ("recipe", "network", "key", ...).
        name: the unknown name.
        known: the names that would have been right.
        where: file or section the name stands in.
    """
    names = sorted(known)
    near = get_close_matches(name, names, n=1, cutoff=NEAR)
    if near:
        hint = f"did you mean {near[0]!r}?"
    elif len(names) > LISTED:
        listed = sorted(get_close_matches(name, names, n=LISTED, cutoff=0.0))
        hint = f"expected one of: {', '.join(listed)} and {len(names) - LISTED} others"
    else:
        hint = f"expected one of: {', '.join(names)}" if names else "there is none"
    return EdcError(f"{where}: unknown {kind} {name!r}; {hint}" if where else f"unknown {kind} {name!r}; {hint}")


def switched_on(variable: str) -> bool:
    """Whether an environment variable, on by default, is on; an :class:`EdcError` if it is neither on nor off."""
    value = os.environ.get(variable, "")
    if (lower := value.strip().lower()) not in ON + OFF:
        raise EdcError(f"{variable}={value}: expected on or off (or true, 1, yes, false, 0, no)")
    return lower in ON
