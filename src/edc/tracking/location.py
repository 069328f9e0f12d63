"""Where MLflow's store is, and how it is named in messages: without credentials."""

from __future__ import annotations

import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

LONGEST = 300
"""Characters of a message from elsewhere."""


def store_uri() -> str:
    """``MLFLOW_TRACKING_URI``, else ``mlflow.db`` in the working directory."""
    return os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"


def shown(uri: str) -> str:
    """A URI without user, password, query and fragment.

    A password may hold what ends the host in a well-formed URI (``/``, ``@``, ``?``): all up to the last ``@`` is left
    out, and where that ``@`` may be a query's, everything but the scheme.
    """
    scheme, separator, rest = uri.partition("://") if "://" in uri else ("", "", uri)
    address = rest.partition("?")[0].partition("#")[0]
    if "@" in rest[len(address) :]:
        return f"{scheme}{separator}..."
    # Without a host (sqlite:///a@b.db) there is no user.
    return scheme + separator + (address if rest.startswith("/") else address.rpartition("@")[2])


def one_line(error: BaseException, uri: str) -> str:
    """An error's text as one line, without what is secret of the URI and without the statement a database refused."""
    text = " ".join((str(error) or type(error).__name__).replace(uri, shown(uri)).split()).partition(" [SQL: ")[0]
    rest = uri.partition("://")[2]
    user, _, password = rest.rpartition("@")[0].partition(":")
    # A password with such a character is taken apart by whoever reads the URI.
    secrets = {*re.split("[/@?#]", password or user), *rest.partition("?")[2].split("&")} - {""}
    text = re.sub(r"//\S*@", "//", text)
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "...").replace(unquote(secret), "...")
    return text if len(text) <= LONGEST else text[:LONGEST] + " ..."


def check_sqlite(uri: str) -> None:
    """Open a store that is an SQLite file for writing: one that cannot be written costs MLflow a minute of attempts."""
    parts = urlsplit(uri)
    if parts.scheme.startswith("sqlite") and len(parts.path) > 1:
        path = Path(unquote(parts.path)[1:])
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
