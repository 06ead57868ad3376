"""The cost of exchange: the published figures where they do not depend on the machine."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from emu_perception.benchmark.exchange import exchange_cost
from emu_perception.cli import app


def test_the_cost_of_a_block_follows_the_image(tmp_path: Path) -> None:
    file = tmp_path / "cost.json"
    options = ["--task", "depth", "--task", "normals", "--size", "64x32", "--rounds", "1"]
    arguments = ["benchmark", "exchange", *options, "--json", str(file)]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0 and "| depth, normals | 773,120 |" in result.output
    found = json.loads(file.read_text())
    assert found["tasks"] == ["depth", "normals"] and found["seconds"] > 0
    # Of each direction: what does not depend on other places, and attention between 4 x 8 places.
    pixels, places, c = 16 * 32, 4 * 8, 128
    local = pixels * c * (9 * c + 9 * c + 3 * c // 2 + c) + 3 * places * c * c
    expected = 2 * (local + 2 * places**2 * c) / 1e9
    assert found["giga_macs"] == pytest.approx(expected, rel=1e-6)
    assert found["network_giga_macs"] > expected
    with pytest.raises(ValueError, match="at least two tasks, got depth"):
        exchange_cost(["depth"])
