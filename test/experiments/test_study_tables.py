"""Tables of documents from the results of studies."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from emu_perception.cli import app
from emu_perception.experiments.study_tables import fill, index, read_results


def figure(mean: float) -> dict[str, Any]:
    values = {"seed 0": mean - 0.1, "seed 1": mean + 0.1}
    return {"mean": mean, "deviation": 0.1414, "values": values}


def study(**changes: Any) -> dict[str, Any]:
    difference = {"mean": 0.2, "low": 0.1, "high": 0.3, "below": 0, "values": {"seed 0": 0.2}}
    return {
        "rows": {"plain": {"mIoU": figure(0.5)}, "ours | new": {"mIoU": figure(0.7)}},
        "differences": [
            {
                "row": "ours | new",
                "against": "plain",
                "relative": False,
                "columns": {"mIoU": difference},
            }
        ],
        "unfinished": [],
        "about": {
            "title": "Does it help?",
            "command": "emu study --config a.yaml",
            "seeds": [0, 1],
        },
        **changes,
    }


def write(folder: Path, **studies: dict[str, Any]) -> Path:
    folder.mkdir()
    for name, content in studies.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


ROWS = "| method | mIoU |\n| --- | --- |\n| plain | 0.5 ± 0.14 |\n| ours \\| new | 0.7 ± 0.14 |\n"


def test_a_page_gets_the_tables_that_it_names(tmp_path: Path) -> None:
    found = read_results(write(tmp_path / "results", first=study()))
    page = "# A\n\n<!-- table: first rows -->\nold\n<!-- end of table -->\n\nText | stays.\n"
    filled = fill(page, found)
    assert filled == (
        f"# A\n\n<!-- table: first rows -->\n\n{ROWS}\n<!-- end of table -->\n\nText | stays.\n"
    )
    assert fill(filled, found) == filled
    whole = fill("<!-- table: first -->\n<!-- end of table -->", found)
    assert ROWS in whole and "| ours \\| new − plain | +0.2 [+0.1, +0.3] 1/1 |" in whole
    part = fill("<!-- table: first differences -->\n<!-- end of table -->", found)
    assert ROWS not in part and "+0.2 [+0.1, +0.3]" in part


def test_the_index_lists_questions_commands_and_what_is_missing(tmp_path: Path) -> None:
    folder = write(tmp_path / "results", b=study(unfinished=["seed 1: plain"]), a=study())
    lines = index(read_results(folder)).splitlines()
    assert lines[2] == ("| a | Does it help? | 2 | 2 | `emu study --config a.yaml` | finished |")
    assert lines[3].endswith("| 1 not finished |")


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("<!-- table: second -->\n<!-- end of table -->", "no study 'second'; there are first"),
        ("<!-- table: first all -->\n<!-- end of table -->", "not 'all'"),
        ("<!-- table: first -->\n", "no '<!-- end of table -->'"),
    ],
)
def test_a_place_that_cannot_be_filled(tmp_path: Path, page: str, message: str) -> None:
    found = read_results(write(tmp_path / "results", first=study()))
    with pytest.raises(ValueError, match=message):
        fill(page, found)


def test_files_that_are_no_results(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no results"):
        read_results(tmp_path)
    with pytest.raises(ValueError, match=r"bad\.json does not hold"):
        read_results(write(tmp_path / "results", bad={"rows": {}}))


def test_the_command_fills_and_checks(tmp_path: Path) -> None:
    folder = write(tmp_path / "results", first=study())
    page = tmp_path / "page.md"
    page.write_text("<!-- table: first rows -->\n<!-- end of table -->\n")

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["results", "--folder", str(folder), *arguments])

    assert "out of date" in str(run(str(page), "--check").exception)
    assert ROWS not in page.read_text()
    assert run(str(page)).exit_code == 0
    assert ROWS in page.read_text()
    assert run(str(page), "--check").exit_code == 0
    assert "Does it help?" in run().output
