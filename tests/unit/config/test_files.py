"""The models of the files a person writes: mistakes are named by file and key, and files inherit."""

from pathlib import Path
from typing import Any

import pytest
from support import one_line

from edc.config.files import KINDS, names, read, root, written
from edc.config.partial import Part, merge, partial
from edc.config.rows import Dataset
from edc.config.schema import schema
from edc.config.validation import keys_at, read_yaml, validate
from edc.errors import EdcError, unknown_name

# Kind of file, what is written in it, and the words of the line that refuses it.
MISTAKES: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "key": ("studies", {"student": ["convnet_w32"]}, ["unknown key 'student'", "'students'"]),
    "recipe key": (
        "recipes",
        {"synthesize": {"optimise": {"iteration": 5}}},
        ["synthesize.optimise: unknown key 'iteration'", "did you mean 'iterations'?"],
    ),
    "section of the other kind": ("recipes", {"families": {"digits": {"student": {}}}}, ["unknown key 'student'"]),
    "protocol key": ("protocols", {"student": {"epoch": 5}}, ["student: unknown key 'epoch'", "'epochs'"]),
    "layer key": (
        "protocols",
        {"ipc": {10: {"student": {"optimiser": {"rate": 1}}}}},
        ["ipc.10.student.optimiser: unknown key 'rate'"],
    ),
    "dataset key": ("datasets", {"data": {"image_sise": 8}}, ["data: unknown key 'image_sise'", "'image_size'"]),
    "name of a dataset": ("datasets", {"data": {"name": "x"}}, ["data: unknown key 'name'"]),
    "network key": ("datasets", {"networks": {"convnet_d1": {"epoch": 1}}}, ["networks.convnet_d1", "'epochs'"]),
    "grid key": ("studies", {"grids": [{"recipe": ["edc"]}]}, ["grids.0: unknown key 'recipe'", "'recipes'"]),
    "variant key": (
        "studies",
        {"variants": {"v": {"protocol": {"student": {"emma": 0}}}}},
        ["variants.v.protocol.student: unknown key 'emma'", "'ema'"],
    ),
    "override key": (
        "studies",
        {"overrides": {"recipes": {"edc": {"families": {"digits": {"synthesize": {"mach": {}}}}}}}},
        ["overrides.recipes.edc.families.digits.synthesize: unknown key 'mach'", "'match'"],
    ),
    "range": ("recipes", {"synthesize": {"match": {"alpha": 1.5}}}, ["synthesize.match.alpha = 1.5", "less than"]),
    "choice": ("recipes", {"synthesize": {"match": {"target": "norm"}}}, ["match.target = 'norm'", "'both'"]),
    "registry": ("recipes", {"synthesize": {"initialise": {"method": "reel"}}}, ["unknown name 'reel'", "'real'"]),
    "type": ("recipes", {"synthesize": {"optimise": {"lr": "fast"}}}, ["optimise.lr = 'fast'", "number"]),
    "family range": (
        "recipes",
        {"families": {"digits": {"synthesize": {"optimise": {"lr": -1}}}}},
        ["families.digits.synthesize.optimise.lr = -1", "greater than 0"],
    ),
    "override range": (
        "studies",
        {"overrides": {"protocols": {"edc": {"student": {"epochs": 0}}}}},
        ["overrides.protocols.edc.student.epochs = 0"],
    ),
    "role": ("recipes", {"observers": {"label": "first"}}, ["observers: unknown key 'label'", "match, score"]),
    "networks": ("recipes", {"observers": {"match": "frist"}}, ["expected 'first', 'all' or a list", "'frist'"]),
    "empty section": ("protocols", {"student": None}, ["student = None: expected a mapping"]),
    "misspelt": ("studies", {"protocls": ["edc"]}, ["unknown key 'protocls'; did you mean 'protocols'?"]),
    "truth as a count": ("studies", {"ipc": [True]}, ["ipc.0 = True", "integer"]),
    "truth as a seed": ("studies", {"seeds": [False]}, ["seeds.0 = False", "integer"]),
    "truth as a rate": ("recipes", {"synthesize": {"optimise": {"lr": True}}}, ["optimise.lr = True", "number"]),
    "truth in a pair": ("recipes", {"synthesize": {"optimise": {"betas": [True, 0]}}}, ["betas.0 = True", "number"]),
    "truth as threads": ("studies", {"machine": {"threads": True}}, ["machine.threads = True", "integer"]),
    "text as a number": ("protocols", {"student": {"epochs": "08"}}, ["student.epochs = '08'", "integer"]),
    "number as a name": ("studies", {"datasets": [1e5]}, ["datasets.0 = 100000.0", "string"]),
    "no recipes": ("studies", {"recipes": []}, ["recipes = []"]),
    "repeated size": ("studies", {"ipc": [2, 2]}, ["ipc: expected every number once, found [2, 2]"]),
    "no list": ("studies", {"ipc": 2}, ["ipc = 2: expected a list, such as [2]"]),
    "nothing": ("studies", {"seeds": []}, ["seeds = []: expected at least one entry"]),
    "repeated seed": ("studies", {"seeds": [0, 0]}, ["seeds: expected every number once"]),
    "limits": ("protocols", {"relabel": {"crop_scale": [1.0, 0.5]}}, ["crop_scale: expected the smaller limit first"]),
    "parent": ("recipes", {"inherits": 3}, ["inherits = 3"]),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_refused_when_its_file_is_read(name: str) -> None:
    kind, values, words = MISTAKES[name]
    with one_line(*words, start="file.yaml: "):
        validate(written(kind), values, "file.yaml")


def test_values_of_a_part_are_those_written() -> None:
    values = {"synthesize": {"optimise": {"lr": 1, "betas": [0.1, 0.2]}, "jpeg": None}}
    expected = {"optimise": {"lr": 1.0, "betas": (0.1, 0.2)}, "jpeg": None}
    assert validate(written("recipes"), values, "").synthesize == expected
    assert validate(written("recipes"), {}, "").synthesize in (None, {})
    assert "name" not in Part(Dataset, without=("name",)).model.model_fields
    # A part of a part is optional at every depth.
    model = partial(KINDS["datasets"])
    assert validate(model, {"pretrain": {"optimiser": {"lr": 0.1}}}, "").pretrain.optimiser.lr == 0.1
    assert not any(field.is_required() for field in model.model_fields.values())


def test_only_mappings_are_merged() -> None:
    base = {"a": {"b": 1, "c": [1, 2]}, "d": {"e": 1}}
    assert merge(base, {"a": {"c": [3]}, "d": None}) == {"a": {"b": 1, "c": [3]}, "d": None}
    assert merge({"d": None}, {"d": {"e": 2}}) == {"d": {"e": 2}}


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("convnet_w23", ["convnet_w32", "resnet18"], "did you mean 'convnet_w32'?"),
        ("xyz", ["edc", "random"], "expected one of: edc, random"),
        ("flowers", ["folder", "digits"], "expected one of: digits, folder"),
        ("xyz", [f"name{i:02}" for i in range(40)], " and 32 others"),
        ("xyz", [], "there is none"),
    ],
)
def test_unknown_names(name: str, known: list[str], hint: str) -> None:
    line = str(unknown_name("recipe", name, known, "file"))
    assert line.startswith(f"file: unknown recipe {name!r}; ")
    assert line.endswith(hint)


# Files


def store(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / "workflow" / "recipes" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"a": "inherits: c\n", "cc": ""}, "workflow/recipes/a.yaml: unknown recipe 'c'"),
        ({"a": "inherits: a\n"}, "workflow/recipes/a.yaml: inherits from itself through a -> a"),
        ({"a": "inherits: b\n", "b": "inherits: a\n"}, "inherits from itself through a -> b -> a"),
        ({"a": "inherits: b\n", "b": "jpeg: 75\n"}, "workflow/recipes/b.yaml: unknown key 'jpeg'"),
        ({"a": "source: s\n"}, "workflow/recipes/a.yaml: missing key 'description'"),
        ({"a": "description: [open"}, "workflow/recipes/a.yaml: line 2 is not valid YAML"),
        ({"a": "description: a\0"}, "workflow/recipes/a.yaml: is not valid YAML (unacceptable character"),
        ({"a": "- b\n"}, "workflow/recipes/a.yaml: expected a mapping"),
        ({"a": ""}, "workflow/recipes/a.yaml: expected a mapping"),
        ({"a": "inherits: 1e5\n"}, "inherits = 100000.0"),
    ],
)
def test_files_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    store(tmp_path, **files)
    with one_line(words):
        read("recipes", "a")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["my.birds", "my birds", "1e5", "10", "-birds", "börds"])
def test_a_name_that_is_no_key_is_refused(
    kind: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("workflow", kind, f"{name}.yaml")
    path.parent.mkdir(parents=True)
    path.write_text("{}\n")
    with one_line(f"{path}: ", f"name {name!r}: expected letters, digits, _ and -", "rename the file"):
        read(kind, name)


@pytest.mark.parametrize(
    "value", ["010", "-07", "0x10", "0b11", "1_000", "1:00", "1:00.5", "1_0.5", "9223372036854775808", "3\nb: 1\na: 2"]
)
def test_what_readers_of_yaml_take_for_different_values_is_refused(value: str, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(f"a: {value}\n")
    with one_line(f"{path}: line ", "key 'a' given twice" if "\n" in value else f"found {value}"):
        read_yaml(path)


def test_numbers_are_those_of_yaml_1_2(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(f"values: [1e-3, 1E5, -1.5e+3, .5, 0, -3, {2**63 - 1}, '1e-3', e5, 1e]\n")
    assert read_yaml(path)["values"] == [1e-3, 1e5, -1.5e3, 0.5, 0, -3, 2**63 - 1, "1e-3", "e5", "1e"]


def test_a_file_that_is_no_text_or_no_name(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"description: caf\xe9\n")
    with pytest.raises(EdcError, match=r"a\.yaml: cannot be read"):
        read_yaml(tmp_path / "a.yaml")
    with pytest.raises(EdcError, match=r"unknown study '\.\./studies/digits'"):
        read("studies", "../studies/digits")


def test_values_of_a_file_are_laid_over_those_it_inherits() -> None:
    child, parent = read("recipes", "config_g"), read("recipes", "gvbsm")
    assert child.synthesize["match"]["target"] == "both"
    assert child.synthesize["match"]["first_hook"] == parent.synthesize["match"]["first_hook"]
    assert (child.protocol, root("recipes", "config_g"), root("recipes", "nothing")) == ("config_g", "gvbsm", "nothing")
    file = read("recipes", "edc", {"synthesize": {"jpeg": 9}, "families": {"digits": {"protocol": "rded"}}})
    assert (file.synthesize["jpeg"], file.families["digits"].protocol) == (9, "rded")
    assert file.families["digits"].synthesize["optimise"]["iterations"] == 200


# Schemas


def keys(values: Any, above: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], str]]:
    """Every key of nested values, with the keys it stands under."""
    if isinstance(values, list):
        return [pair for i, value in enumerate(values) for pair in keys(value, (*above, str(i)))]
    if not isinstance(values, dict):
        return []
    own = [(above, str(key)) for key in values]
    return own + [pair for key, value in values.items() for pair in keys(value, (*above, str(key)))]


@pytest.mark.parametrize("kind", KINDS)
def test_every_key_of_every_shipped_file_is_in_its_schema(kind: str) -> None:
    listed = schema(kind)
    # Sections whose keys are names.
    sections = ("families", "ipc", "students", "networks", "variants", "datasets", "recipes", "protocols")
    free = {(section,) for section in sections}
    for name in names(kind):
        path = Path("workflow", kind, f"{name}.yaml")
        text = path.read_text()
        assert text.startswith(f"# yaml-language-server: $schema=../schema/{kind}.json\n"), path
        for above, key in keys(read_yaml(path)):
            assert above[-1:] in free or key in keys_at(listed, above), f"{path}: {'.'.join(above)}.{key}"


def test_a_study_s_schema_knows_the_values_of_recipes() -> None:
    above = ("overrides", "recipes", "edc", "families", "digits", "synthesize", "match")
    assert {"alpha", "ema"} <= set(keys_at(schema("studies"), above))
    assert "threads" in keys_at(schema("params"), ("machine",))
    assert {"optimiser", "training_values"} <= set(keys_at(schema("params"), ("evaluate", "some-run")))
