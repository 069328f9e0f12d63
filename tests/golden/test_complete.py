"""Every number of the baselines' published code is asserted, or has a reason in ``baselines.json`` why it is not."""

from support import REPOSITORY, golden

ELSEWHERE = ("dd_ranking", "evaluation_budget", "published")


def test_every_group_is_asserted_or_excused() -> None:
    numbers, excused = golden("baselines"), set(golden("baselines")["_not_asserted"])
    sections = {name: groups for name, groups in numbers.items() if not name.startswith("_") and name not in ELSEWHERE}
    groups = {f"{section}.{key}": value for section, held in sections.items() for key, value in held.items()}
    random = {path for path, value in groups.items() if isinstance(value, dict) and value.get("rng")}
    text = "".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "tests" / "golden").glob("test_*.py"))
    asserted = {path for path in groups if f'"{path}"' in text}
    assert excused <= set(groups) - asserted
    assert set(groups) - random - excused <= asserted


def test_the_other_sections_are_asserted_elsewhere() -> None:
    texts = [path.read_text(encoding="utf-8") for path in (REPOSITORY / "tests" / "unit").rglob("test_*.py")]
    for section in ELSEWHERE:
        assert any(f'golden("baselines")["{section}"]' in text for text in texts), section
