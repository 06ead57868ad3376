"""The documentation agrees with the code, and its Python and YAML blocks work."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import typer
import yaml

from emu_perception.cli import app
from emu_perception.tasks import TASKS

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    *(
        page
        for page in sorted((ROOT / "docs").rglob("*.md"))
        if not {"_build", "reference"} & set(page.relative_to(ROOT).parts)
    ),
]
"""The pages that are written by hand."""
sys.path.insert(0, str(ROOT / "docs"))

import generate  # noqa: E402


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """Yield place and text of the code blocks of all pages."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for found in re.finditer(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            line = text.count("\n", 0, found.start()) + 1
            yield f"{page.relative_to(ROOT)}:{line}", found[1]


def case(language: str) -> pytest.MarkDecorator:
    found = list(blocks(language))
    return pytest.mark.parametrize("code", [b for _, b in found], ids=[w for w, _ in found])


def test_the_readme_is_short() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 250
    assert len(text.split()) <= 1200


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_to_files_exist(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?://|#|mailto:)([^)#]+)[^)]*\)", page.read_text()):
        if "reference/" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@case("python")
def test_python_blocks_run(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    assert cv2.imwrite("my.jpg", image)
    (tmp_path / "my_data").mkdir()
    (tmp_path / "my_data" / "classes.yaml").write_text(
        "name: mine\nclasses: [{name: floor, color: [1, 2, 3]}]\n"
    )
    known = dict(TASKS)
    try:
        exec(compile(code, "page", "exec"), {"__name__": "page"})
    finally:
        TASKS.clear()
        TASKS.update(known)


@case("yaml")
def test_yaml_blocks_are_valid(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from emu_perception.experiments.table_config import TableConfig
    from emu_perception.labels import LabelSet
    from emu_perception.training.config import TrainConfig
    from emu_perception.training.config_file import merged, read_values

    monkeypatch.setenv("CAMVID", "/data/camvid")
    values = yaml.safe_load(code)
    if "/**" in values:
        settings = pytest.importorskip("emu_perception.ros.settings").Settings
        given = values["/**"]["ros__parameters"]
        assert given.keys() <= {field.name for field in dataclasses.fields(settings)}
    elif "classes" in values:
        LabelSet.from_dict(values)
    elif "rows" in values:
        TableConfig.model_validate(values)
    else:
        if "extends" in values:
            base = ROOT / "config" / "train" / "scenes" / values.pop("extends")
            values = merged(read_values(base), values)
        TrainConfig.model_validate(values)


def commands() -> dict[str, Any]:
    return dict(generate.commands(typer.main.get_command(app), "emu"))


@case("bash")
def test_command_lines_use_existing_commands_options_and_files(code: str) -> None:
    known = commands()
    for line in code.replace("\\\n", " ").splitlines():
        words = line.partition("  #")[0].partition(" # ")[0].split()
        if not words or words[0] != "emu":
            continue
        name, command = "emu", known["emu"]
        rest = words[1:]
        while rest and f"{name} {rest[0]}" in known:
            name = f"{name} {rest.pop(0)}"
            command = known[name]
        assert name != "emu" or rest == ["--version"], f"no such command: {line}"
        options = {o for p in command.params for o in (*p.opts, *p.secondary_opts)} | {"--help"}
        given = {word.partition("=")[0] for word in rest if word.startswith("-")}
        assert given <= options | {"--version"}, f"{line}: {given - options}"
        for word in rest:
            if word.startswith("config/"):
                assert (ROOT / word).is_file(), line


def test_every_study_is_listed_with_its_figures() -> None:
    page = generate.studies_page()
    for path in (ROOT / "config" / "studies").glob("*.yaml"):
        assert f"\n| `{path.stem}` | " in page
    assert "| [emuformer](../results/emuformer.md) |" in page  # its page has a table
    listed = re.search(r"\| `mtpsl_rooms` .*", page)
    assert listed is not None
    has_table = "|---|" in (ROOT / "docs/results/partial_labels.md").read_text().split("## ")[0]
    assert listed.group().endswith("none yet |") != has_table


def test_every_command_option_and_key_is_on_a_reference_page() -> None:
    page = generate.commands_page()
    names = commands()
    assert len(names) > 20
    for name, command in names.items():
        if name == "emu":
            continue
        assert f"## {name}\n" in page
        for parameter in command.params:
            if parameter.name != "help":
                assert f"`{', '.join(parameter.opts)}`" in page or parameter.name.upper() in page
    from emu_perception.training.config import TrainConfig

    keys = generate.configuration_page()
    for group, field in TrainConfig.model_fields.items():
        assert f"| `{group}` |" in keys
        for key in getattr(field.annotation, "model_fields", {}):
            assert f"| `{group}.{key}` |" in keys


def test_the_node_page_lists_every_topic_parameter_and_launch_argument() -> None:
    pytest.importorskip("rclpy")
    from emu_perception.messages.compressed import COMPRESSED_OUTPUTS
    from emu_perception.messages.topics import image_outputs

    page = (ROOT / "docs" / "ros_node.md").read_text(encoding="utf-8")
    for topic in (*image_outputs(), *COMPRESSED_OUTPUTS):
        assert f"`{topic}`" in page
    for row in generate.parameter_table().splitlines():
        assert row in page, "docs/ros_node.md is behind emu_perception/ros/settings.py"
    launch = (ROOT / "launch" / "emu_perception.launch.py").read_text(encoding="utf-8")
    for argument in re.findall(r'^    "(\w+)": [("]', launch, re.MULTILINE):
        assert f"`{argument}`" in page


def test_every_study_configuration_is_listed() -> None:
    page = (ROOT / "docs" / "howto" / "studies.md").read_text(encoding="utf-8")
    for path in (ROOT / "config" / "studies").glob("*.yaml"):
        if path.stem != "mining_camvid":
            assert f"`{path.stem}`" in page


def test_every_class_id_is_on_the_page_of_classes() -> None:
    page = generate.classes_page()
    assert "| 13 | car |" in page and "| 10 | sky |" in page
    for path in (ROOT / "config" / "labels").glob("*.yaml"):
        classes = yaml.safe_load(path.read_text(encoding="utf-8"))["classes"]
        section = page.partition(f"`config/labels/{path.name}`")[2].partition("\n## ")[0]
        for number, each in enumerate(classes):
            assert f"| {number} | {each['name']} |" in section
            assert ", ".join(map(str, each["color"])) in section


def test_every_page_of_the_node_is_linked_from_the_entrances() -> None:
    for page in (ROOT / "docs" / "node").glob("*.md"):
        for entrance in ("README.md", "docs/ros_node.md", "docs/index.md"):
            text = (ROOT / entrance).read_text(encoding="utf-8")
            assert f"node/{page.name})" in text, f"{entrance} has no link to {page.name}"
