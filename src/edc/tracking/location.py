"""Where MLflow's store is, and how it is named in messages: without credentials."""

from __future__ import annotations

import os
import re
from pathlib import Path
from tempfile import TemporaryDirectory
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
    """An error's text as one line, without what is secret of the URI, and without SQLAlchemy's statement and link."""
    text = " ".join((str(error) or type(error).__name__).replace(uri, shown(uri)).split())
    text = re.sub(r" (\[SQL: |\(Background on this error).*", "", text)
    rest = uri.partition("://")[2]
    user, _, password = rest.rpartition("@")[0].partition(":")
    # A password with such a character is taken apart by whoever reads the URI.
    secrets = {*re.split("[/@?#]", password or user), *rest.partition("?")[2].split("&")} - {""}
    text = re.sub(r"//\S*@", "//", text)
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "...").replace(unquote(secret), "...")
    return text if len(text) <= LONGEST else text[:LONGEST] + " ..."


def open_database(uri: str) -> None:
    """Open a store that is a database once, for writing if it is an SQLite file; make this file if it is not there.

    MLflow makes a minute and more of attempts to open one it cannot open, and cannot use a file whose creation was
    interrupted.
    """
    from mlflow import MlflowClient
    from mlflow.store.db.db_types import DATABASE_ENGINES, SQLITE
    from sqlalchemy import create_engine

    parts = urlsplit(uri)
    kind, path = parts.scheme.partition("+")[0], Path(unquote(parts.path)[1:])
    if kind == SQLITE and path.name and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=path.parent, prefix=f"{path.name}.") as folder:  # with SQLite's journal
            MlflowClient(f"sqlite:///{folder}/{path.name}").search_experiments()
            Path(folder, path.name).replace(path)
    elif kind in DATABASE_ENGINES:
        with create_engine(uri).connect() as connection:
            if kind == SQLITE:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
