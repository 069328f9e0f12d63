"""Condensed sets that leave and come back, with real commands: the page on it, round trips, help."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from checkout import REPOSITORY, Checkout
from samples import STUDENT

PAGE = REPOSITORY / "docs" / "hand-over.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FORMATS = {"pictures": "folder", "parquet": "parquet", "tensors": "torch"}
RUN, LABELS, JUDGED = "digits-edc-ipc10", "digits-edc-ipc10-edc", "digits-edc-ipc10-convnet_w32-edc"

# Every run of the plan that is not finished, in one process: torch starts once.
REPRO = """
from edc.pipeline import dag
from edc.stages.context import execute
from edc.config.references import load_plan
from pathlib import Path

for task in dag.tasks(load_plan()):
    if task.stage != "tables" and not Path(dag.folder(task.stage, task.key), "manifest.json").exists():
        execute(task.stage, task.key)
"""
EDC = {"families": {"digits": {"student": STUDENT | {"batch": 25}, "ipc": {10: {"student": {"epochs": 6}}}}}}
STUDY: dict[str, Any] = {
    "description": "one condensed set in seconds",
    "datasets": ["digits"],
    "recipes": ["edc"],
    "ipc": [10],
    "protocols": ["edc"],
    "students": ["convnet_w32"],
    "seeds": [0, 1],
    "machine": {"device": "cpu", "threads": 1},
    "overrides": {
        "datasets": {
            "digits": {"data": {"train_per_class": 20, "test_per_class": 10}, "observers": ["convnet_d1", "convnet_d2"]}
        },
        "recipes": {"edc": {"families": {"digits": {"ipc": {10: {"synthesize": {"optimise": {"iterations": 2}}}}}}}},
        "protocols": {"edc": EDC},
    },
}


@pytest.fixture(scope="session")
def handed(once) -> Checkout:
    """A finished small study of digits, after the page's exports and its import; only to be read."""

    def make(folder: Path) -> None:
        made = Checkout.make(folder / "project")
        made.write("workflow/studies/few.yaml", STUDY)
        made.ok("edc", "plan", "few")
        made.ok(sys.executable, "-c", REPRO)
        for language, text in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
            if language == "sh":
                for command in text.splitlines():
                    made.ok(*shlex.split(command))

    return Checkout(once("handed", make) / "project")


@pytest.fixture
def done(handed, tmp_path) -> Checkout:
    """A copy to work in."""
    return handed.copy(tmp_path / "project")


def scores(checkout: Checkout, key: str) -> dict[str, Any]:
    found = json.loads(checkout.path("results", "evaluate", key, "manifest.json").read_text())
    return {name: found[name] for name in ("scores", "image_bytes", "label_bytes", "steps", "test_digest")}


def note(recipe: Path) -> dict[str, Any]:
    """The protocol a recipe's first lines advise."""
    lines = [line[4:] for line in recipe.read_text(encoding="utf-8").splitlines() if line.startswith("#   ")]
    return yaml.safe_load("\n".join(lines))


@pytest.mark.slow
@pytest.mark.early(6)
def test_the_example_runs(handed):
    blocks = [text for language, text in BLOCK.findall(PAGE.read_text(encoding="utf-8")) if language == "python"]
    assert len(blocks) == 1
    assert "condensed.set_epoch(3)" in blocks[0]
    said = handed.ok(sys.executable, "-c", blocks[0])
    assert said.count("torch.Size([25, 1, 8, 8]) torch.Size([25, 10]) torch.Size([25])") == 4


@pytest.mark.slow
def test_the_study_of_the_page_is_planned(done):
    [text] = [text for language, text in BLOCK.findall(PAGE.read_text(encoding="utf-8")) if language == "yaml"]
    path = re.match(r"# (\S+)\n", text)
    assert path is not None
    done.write(path[1], text)
    done.ok("edc", "plan", Path(path[1]).stem)
    plan = done.plan()
    assert plan["synthesize"]["digits-theirs-ipc10"]["initialise"]["method"] == "imported"
    assert not plan["continual"]
    assert plan["evaluate"]["digits-theirs-ipc10-convnet_d2-hard_label"]["regime"] == "hard"


@pytest.mark.slow
def test_round_trips_give_the_same_accuracy(done):
    """Labelled by the observers again, or with the labels that came along, in every format: the very same scores."""
    grids: list[dict[str, Any]] = [{}]
    for name, layout in FORMATS.items():
        done.ok("edc", "import", f"back_{layout}", "--data", f"handed/{name}", "--dataset", "digits")
        own = note(done.path("workflow", "recipes", f"back_{layout}.yaml"))
        assert own["regime"] == "soft"
        own["families"]["digits"]["ipc"][10]["student"] |= {n: v for n, v in STUDENT.items() if n != "batch"}
        done.write(f"workflow/protocols/back_{layout}.yaml", own)
        grids.append({"recipes": [f"back_{layout}"], "protocols": ["edc", f"back_{layout}"]})
    done.write("workflow/studies/back.yaml", STUDY | {"grids": grids})
    expected = scores(done, JUDGED)
    done.ok("edc", "plan", "back")
    done.ok(sys.executable, "-c", REPRO)
    for layout in FORMATS.values():
        for protocol in ("edc", f"back_{layout}"):
            assert scores(done, f"digits-back_{layout}-ipc10-convnet_w32-{protocol}") == expected, protocol
            for name in ("logits.npy", "static.npy"):
                one = done.path("results", "relabel", f"digits-back_{layout}-ipc10-{protocol}", name)
                assert one.read_bytes() == done.path("results", "relabel", LABELS, name).read_bytes()


@pytest.mark.slow
def test_other_views_than_the_labels_are_refused(done, refused):
    own = note(done.path("workflow", "recipes", "theirs.yaml"))
    own["families"]["digits"]["ipc"][10]["student"] |= {n: v for n, v in STUDENT.items() if n != "batch"}
    own["families"]["digits"]["ipc"][10]["relabel"]["crop_scale"] = [0.4, 1.0]
    fixed = own | {"regime": "static"}
    for name, values in (("soft", own), ("static", fixed)):
        done.write(f"workflow/protocols/theirs_{name}.yaml", values)
    grids = [
        {"recipes": ["theirs"], "protocols": ["theirs_fixed"]},
        {"recipes": ["edc"], "protocols": ["theirs_fixed"]},
    ]
    done.write("workflow/studies/back.yaml", STUDY | {"grids": grids})
    done.ok("edc", "plan", "back")
    # Labels of single images fit any view.
    for stage, key in (("synthesize", "digits-theirs-ipc10"), ("relabel", "digits-theirs-ipc10-theirs_fixed")):
        done.ok("edc", stage, "--run", key)
    done.ok("edc", "evaluate", "--run", "digits-theirs-ipc10-convnet_w32-theirs_fixed")
    said = refused(done, "edc", "relabel", "--run", "digits-edc-ipc10-theirs_fixed")
    assert "the images 'digits-edc-ipc10' are not imported; expected 'observers'" in said

    shutil.rmtree(done.path("results", "relabel", "digits-theirs-ipc10-theirs_fixed"))
    done.write("workflow/studies/back.yaml", STUDY | {"recipes": ["theirs"], "protocols": ["theirs_soft"]})
    done.edit("workflow/studies/back.yaml", {"overrides": {"datasets": STUDY["overrides"]["datasets"]}})
    done.ok("edc", "plan", "back")
    said = refused(done, "edc", "relabel", "--run", "digits-theirs-ipc10-theirs_soft")
    assert "crop_scale = [0.5, 1.0], the row has [0.4, 1.0]" in said
    assert "evaluate.digits-theirs-ipc10-convnet_w32-theirs_soft needs labels per epoch" in said

    done.edit("workflow/studies/back.yaml", {"ipc": [5], "protocols": ["edc"]})
    done.ok("edc", "plan", "back")
    said = refused(done, "edc", "synthesize", "--run", "digits-theirs-ipc5")
    assert "10 images per class; ipc = 5 was asked for" in said


@pytest.mark.slow
def test_bad_input_is_one_line_and_nothing_is_written(done, refused):
    bring, give = ("edc", "import", "more", "--dataset", "digits"), ("edc", "export", RUN, "--format")
    shutil.copytree(done.path("handed/pictures"), done.path("plain"))
    for name in ("manifest.json", "classes.json", "labels.safetensors"):
        done.path("plain", name).unlink()
    done.path("plain", "9").rename(done.path("nine"))
    assert "plain: 9 classes; expected 10" in refused(done, *bring, "--data", "plain")
    done.path("nine").rename(done.path("plain", "9"))
    done.edit("workflow/datasets/digits.yaml", {"data.image_size": 16})
    said = refused(done, *bring, "--data", "plain")
    assert "8x8 pixels; expected 16x16" in said
    assert "nothing is resized" in said
    done.edit("workflow/datasets/digits.yaml", {"data.image_size": 8})
    damaged = done.path("handed/tensors/condensed.safetensors")
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert "condensed.safetensors: damaged" in refused(done, *bring, "--data", "handed/tensors")
    assert "recipes/theirs.yaml: exists already" in refused(
        done, "edc", "import", "theirs", "--data", "handed/parquet", "--dataset", "digits"
    )
    assert "handed/parquet: exists already" in refused(done, *give, "parquet", "--to", "handed/parquet")
    assert "unknown format 'hdf'" in refused(done, *give, "hdf", "--to", "out")
    assert "unknown finished synthesize run" in refused(
        done, "edc", "export", f"{RUN}0", "--format", "torch", "--to", "out"
    )


HELP = """
import sys
from edc.cli import main
sys.argv = ["edc", {!r}, "--help"]
try:
    main()
except SystemExit:
    print(sorted(sys.modules))
"""


@pytest.mark.parametrize("command", ["export", "import"])
def test_help_answers_without_loading_anything_heavy(planned, command):
    said = planned.ok(sys.executable, "-c", HELP.format(command))
    assert f"Usage: edc {command}" in said
    assert not {"'torch'", "'numpy'", "'yaml'"} & set(re.findall(r"'\w+'", said.splitlines()[-1]))
