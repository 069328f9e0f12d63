"""What the report shows, read from ``results/`` and checked; nothing here knows of HTML."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from edc import STAGES
from edc.reporting.applications import applications
from edc.errors import EdcError
from edc.reporting.evaluations import Evaluation, evaluations, finished
from edc.config.references import load_plan
from edc.reporting.reported import TABLES, read_figures
from edc.storage import MANIFEST, RESULTS, read_json, sha256
from edc.reporting.tabulate import Table, tables

PLAN = Path("params.yaml")
TEXTS = {
    "stage", "run", "dataset", "recipe", "variant", "protocol", "regime", "student", "reported_student", "device",
    "commit", "dirty", "torch", "python",
}  # fmt: skip
NUMBERS = {
    "ipc", "seeds", "steps", "reported", "reported_imagenet1k", "difference", "gain", "seconds", "hlr", "ior", "lrs",
}  # fmt: skip
ENDINGS = ("_mean", "_std", "_bytes", "_hard", "_own", "_mb")
PNG_END = b"IEND\xaeB`\x82"


@dataclass(frozen=True)
class Run:
    """One finished run of one stage."""

    stage: str
    key: str
    manifest: dict[str, Any]
    made: dict[str, Any]
    """``run.json``; empty where there is none."""

    @property
    def row(self) -> dict[str, Any]:
        """The run's row of the plan it was made with."""
        row: dict[str, Any] = self.manifest["params"][self.stage]
        return row

    @property
    def folder(self) -> Path:
        """Where its files lie."""
        return RESULTS / self.stage / self.key

    def history(self, columns: tuple[str, ...]) -> list[dict[str, float | None]]:
        """Some columns of ``history.csv``, empty cells as None.

        Raises:
            EdcError: the file is missing, is not as it was written, or has no such column.
        """
        path, entry = self.folder / "history.csv", self.manifest["files"].get("history.csv")
        if not path.is_file() or (isinstance(entry, dict) and sha256(path) != entry.get("sha256")):
            raise EdcError(f"{path}: missing or changed since it was made; run `edc {self.stage} --run {self.key}`")
        names, lines = read_lines(path)
        if missing := [name for name in columns if name not in names]:
            raise EdcError(f"{path}: no column {missing[0]!r} in it; run `edc {self.stage} --run {self.key}`")
        return [{name: number(line[name], path, at, name) for name in columns} for at, line in lines]

    def picture(self, name: str) -> bytes | None:
        """A PNG the run left, None where it left none.

        Raises:
            EdcError: the file is no whole PNG.
        """
        return read_picture(self.folder / name) if (self.folder / name).is_file() else None


@dataclass(frozen=True)
class Results:
    """Everything finished that is found here."""

    study: str
    plan: str
    runs: list[Run]
    evaluations: list[Evaluation]
    tables: dict[str, Table]
    stale: list[str]
    """Tables that are not of the evaluations found here."""
    pictures: dict[str, bytes]
    """Figures that are results themselves, by path."""

    def rows(self, table: str) -> list[dict[str, Any]]:
        """The rows of a table, none where it is not here."""
        return self.tables[table].rows if table in self.tables else []

    def of(self, *stages: str) -> list[Run]:
        """The runs of some stages."""
        return [run for run in self.runs if run.stage in stages]

    @cached_property
    def seconds(self) -> dict[tuple[str, str], float]:
        """What every run took, as ``cost.csv`` says."""
        return {(row["stage"], row["run"]): row["seconds"] for row in self.rows("cost") if row["seconds"] is not None}

    @cached_property
    def recipes(self) -> list[str]:
        """All recipes, EDC and random images first: a recipe keeps its place, and so its colour, in every chart."""
        names = {run.row["recipe"] for run in self.of("evaluate", "continual", "slimming")}
        names |= {row["recipe"] for table in ("continual", "slimming") for row in self.rows(table)}
        return sorted(names, key=lambda name: (name != "edc", name != "random", name))


def gather() -> Results:
    """Read and check all results.

    Raises:
        EdcError: there are none, or something of them is damaged.
    """
    found = evaluations()
    read = {path.stem: read_table(path) for path in sorted((RESULTS / "tables").glob("*.csv"))}
    if not read:
        raise EdcError(f"{RESULTS / 'tables'}: no tables here; run `edc tables --run STUDY` first")
    order = {name: place for place, name in enumerate((*TABLES, *sorted(set(read) - {*TABLES, "cost"}), "cost"))}
    now = tables(found, read_figures()) | applications()
    stale = [name for name, table in now.items() if name not in read or written(table) != written(read[name])]
    plan = PLAN.read_text(encoding="utf-8") if PLAN.exists() else ""
    return Results(
        study=load_plan().study if plan else "",
        plan=plan,
        runs=[run for stage in STAGES if stage != "tables" for run in runs(stage)],
        evaluations=found,
        tables={name: read[name] for name in sorted(read, key=lambda name: order[name])},
        stale=stale,
        pictures={
            path.relative_to(RESULTS).as_posix(): read_picture(path)
            for folder in ("figures", "analysis")
            for path in sorted((RESULTS / folder).rglob("*.png"))
        },
    )


def runs(stage: str) -> list[Run]:
    """The finished runs of a stage by name.

    Raises:
        EdcError: a manifest or a record of one is damaged.
    """
    found = []
    for path in finished(stage):
        key, manifest, again = path.parent.name, read_json(path), f"run `edc {stage} --run {path.parent.name}` again"
        missing = [name for name in MANIFEST if not isinstance(manifest, dict) or name not in manifest]
        if missing:
            raise EdcError(f"{path}: damaged, no {missing[0]!r} in it; {again}")
        row = manifest["params"].get(stage) if isinstance(manifest["params"], dict) else None
        named = ("dataset", "recipe", "student") if stage in ("evaluate", "continual", "slimming") else ()
        if not isinstance(row, dict) or not all(isinstance(row.get(name), str) for name in named):
            raise EdcError(f"{path}: damaged, no such run in params.{stage}; {again}")
        record = path.with_name("run.json")
        made = read_json(record) if record.exists() else {}
        if not isinstance(made, dict):
            raise EdcError(f"{record}: damaged, expected a mapping; {again}")
        found.append(Run(stage, key, manifest, made))
    return found


def read_table(path: Path) -> Table:
    """A table of results, empty cells as None, numbers as numbers.

    Raises:
        EdcError: the file is damaged: a line is too short or too long, or a value is no number or out of range.
    """
    names, lines = read_lines(path)
    numeric = {name for name in names if name in NUMBERS or name.endswith(ENDINGS)}
    for name in (name for name in names if name not in numeric | TEXTS):
        if all(line[name] == "" or is_number(line[name]) for _, line in lines):
            numeric.add(name)
    rows = []
    for at, line in lines:
        row: dict[str, Any] = {}
        for name, cell in line.items():
            row[name] = number(cell, path, at, name) if name in numeric else cell or None
            if name.endswith("_mean") and name[:-5] in ("final", "best", "static", "hard", "random"):
                in_range(row[name], path, at, name)
        rows.append(row)
    return Table(names, rows)


def read_lines(path: Path) -> tuple[tuple[str, ...], list[tuple[int, dict[str, str]]]]:
    """Column names of a CSV file, and its lines with their numbers."""
    try:
        content = path.read_text(encoding="utf-8")
        reader = csv.reader(io.StringIO(content), strict=True)
        lines = [(reader.line_num, line) for line in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise EdcError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if not lines or not all(lines[0][1]) or len(set(lines[0][1])) < len(lines[0][1]):
        raise EdcError(f"{path}: damaged or truncated, expected a line of column names first; run its stage again")
    names = tuple(lines[0][1])
    for at, line in lines[1:]:
        if len(line) != len(names):
            raise EdcError(f"{path}: line {at}: damaged, {len(line)} cells, expected {len(names)}; run its stage again")
    if not content.endswith("\n"):
        raise EdcError(f"{path}: damaged or truncated, the last line has no end; run its stage again")
    return names, [(at, dict(zip(names, line, strict=True))) for at, line in lines[1:]]


def number(cell: str, path: Path, line: int, name: str) -> float | int | None:
    """A cell as a number, None where it is empty."""
    if cell == "":
        return None
    if not is_number(cell):
        raise EdcError(f"{path}: line {line}: {name} = {cell!r}: expected a number; run its stage again")
    value = float(cell)
    return int(value) if value.is_integer() and "." not in cell else value


def in_range(value: float | None, path: Path, line: int, name: str) -> None:
    """An accuracy is a percentage."""
    if value is not None and not 0 <= value <= 100:
        raise EdcError(f"{path}: line {line}: {name} = {value}: expected 0 to 100; run its stage again")


def is_number(cell: str) -> bool:
    """Whether a cell is a finite number."""
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


def written(table: Table) -> list[list[str]]:
    """A table as text, for comparison."""
    cells = [["" if value is None else str(value) for value in row.values()] for row in table.rows]
    return [list(table.columns), *cells]


def read_picture(path: Path) -> bytes:
    """A PNG as it is.

    Raises:
        EdcError: it is not a whole one.
    """
    from PIL import Image

    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            image.verify()
        whole = content.endswith(PNG_END)
    except (OSError, SyntaxError, ValueError):
        whole = False
    if not whole:
        raise EdcError(f"{path}: damaged or truncated, not a whole PNG; run the stage that makes it again")
    return content
