"""The guard of the stages' versions: numbers that change without a raised version would leave stale runs up to date."""

import json

import pytest
from numerics import RECORDED, numbers, platform

from edc.stages.versions import VERSIONS

STAGES = [stage for stage in VERSIONS if stage not in ("tables", "analysis")]
TOLERANCE = 0.1
"""Relative, on another processor or PyTorch: rounding grows over a training, a changed formula shifts means by more."""
POINTS = 15
"""The same for accuracies in percent: students of 50 test images differ by several of them."""


@pytest.mark.parametrize("stage", STAGES)
def test_numbers_change_with_the_version_of_their_stage_only(by, stage):
    recorded = json.loads(RECORDED.read_text("utf-8"))
    before, now = recorded["stages"][stage], numbers(by("edc").root)[stage]
    assert now["version"] == before["version"], "version raised: record the numbers again with numerics.py"
    changed = f"numbers of `{stage}` changed: raise its version in edc/stages/versions.py or find out why"
    if platform() == recorded["platform"]:
        assert now["digests"] == before["digests"], changed
    for run, means in before["values"].items():
        for name, mean in means.items():
            absolute = POINTS if "accuracy" in name or name == "correct.npy" else 0.5
            near = pytest.approx(mean, rel=TOLERANCE, abs=absolute)
            assert now["values"][run][name] == near, f"{changed} ({run}, {name})"
