"""Export, import and load with real commands: those of docs/exchange.md."""

import re
import shlex
import sys
from pathlib import Path

import pytest
from checkout import REPOSITORY, Checkout
from samples import DATASET, STUDENT

PAGE = (REPOSITORY / "docs" / "exchange.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
RUN = "digits-edc-ipc10"
DIGITS = {
    "data": {"train_per_class": 20, "test_per_class": 10}, "observers": ["convnet_d1"], "pretrain": DATASET["pretrain"],
}  # fmt: skip
IMAGES = {"ipc": {10: {"synthesize": {"optimise": {"iterations": 2}}}}}
STUDENTS = {"student": STUDENT | {"batch": 25}, "ipc": {10: {"student": {"epochs": 6}}}}
STUDY = {
    "description": "one condensed set in seconds", "datasets": ["digits"], "recipes": ["edc"], "ipc": [10],
    "protocols": ["edc"], "students": ["convnet_d1"], "seeds": [0], "machine": {"device": "cpu", "threads": 1},
    "overrides": {
        "datasets": {"digits": DIGITS},
        "recipes": {"edc": {"families": {"digits": IMAGES}}},
        "protocols": {"edc": {"families": {"digits": STUDENTS}}},
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def exported(once) -> Checkout:
    """A finished small study of digits after the commands of the page."""

    def make(folder: Path) -> None:
        checkout = Checkout.make(folder / "project")
        checkout.write("workflow/studies/few.yaml", STUDY)
        checkout.ok("edc", "plan", "few")
        for stage in ("pretrain", "statistics", "synthesize", "relabel"):
            checkout.ok("edc", stage)
        for language, text in BLOCKS:
            for command in text.splitlines() if language == "sh" else ():
                checkout.ok(*shlex.split(command))

    return Checkout(once("exported", make) / "project")


def test_the_example_of_the_page(exported):
    [example] = [text for language, text in BLOCKS if language == "python"]
    assert exported.ok(sys.executable, "-c", example).count("torch.Size([25, 1, 8, 8]) torch.Size([25, 10])") == 4


def test_the_study_of_the_page_is_planned_and_its_labels_are_used(exported, tmp_path):
    checkout = exported.copy(tmp_path / "project")
    [study] = [text for language, text in BLOCKS if language == "yaml"]
    path = re.match(r"# (\S+)\n", study)
    assert path is not None
    checkout.path(path[1]).write_text(study)
    checkout.ok("edc", "plan", "compare")
    params = checkout.path("params.yaml").read_text()
    for key in ("digits-theirs-ipc10-convnet_d2-hard_label", "digits-theirs-ipc10-convnet_d2-theirs"):
        assert f" {key}" in params
    assert "continual: {}" in params
    checkout.ok("edc", "synthesize", "--run", "digits-theirs-ipc10")
    checkout.ok("edc", "relabel", "--run", "digits-theirs-ipc10-theirs")
    for name in ("logits.npy", "static.npy"):
        theirs = checkout.path("runs/relabel/digits-theirs-ipc10-theirs", name).read_bytes()
        assert theirs == checkout.path(f"runs/relabel/{RUN}-edc", name).read_bytes()
