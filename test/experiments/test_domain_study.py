"""Statistics of a training domain and their comparison with other scores, by the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from emu_perception.cli import app
from emu_perception.experiments.domain import auroc
from emu_perception.inference.model_file import is_half, load_model, read_spec, save_model
from emu_perception.inference.predictor import Predictor

CALM, BUSY = "calm", "busy"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of calm pictures (smooth, dark) and busy ones (noise, bright)."""
    root = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for kind, cells, count in ((CALM, (3, 4), 40), (BUSY, (64, 64), 6)):
        (root / kind / "images").mkdir(parents=True)
        for index in range(count):
            small = random.integers(0, 96, (*cells, 3), np.uint8) + (160 if kind == BUSY else 0)
            image = cv2.resize(small.astype(np.uint8), (64, 64), interpolation=cv2.INTER_CUBIC)
            assert cv2.imwrite(str(root / kind / "images" / f"{index:02d}.png"), image)
    return root


@pytest.fixture(scope="module")
def config(root: Path) -> Path:
    def part(kind: str, pattern: str = "*") -> dict[str, object]:
        options = {"pattern": pattern}
        return {"name": "folder", "root": str(root / kind), "split": "all", "options": options}

    values = {
        "train": [part(CALM, "00..24")],
        "held_out": [part(CALM, "25..31")],
        "inside": [part(CALM, "32..39")],
        "outside": [part(BUSY)],
    }
    path = root / "domain.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def invoke(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_fitted_stored_compared_and_predicted(
    root: Path, config: Path, write_model: Callable[..., Path], tmp_path: Path
) -> None:
    model, fitted = write_model(), tmp_path / "fitted.safetensors"
    loaded = load_model(model)
    save_model(model, loaded.network, loaded.spec, half=True)
    shown = invoke("domain", "fit", config, "--model", model, "--out", fitted)
    statistics = read_spec(fitted).domain
    assert statistics is not None and read_spec(model).domain is None and is_half(fitted)
    assert "7 images" in statistics.held_out and "calm" in statistics.fitted_on
    assert str(root.parent) not in statistics.fitted_on
    assert f"threshold {statistics.threshold:.4g}" in shown

    out = tmp_path / "found.json"
    shown = invoke("domain", "compare", config, "--model", fitted, "--json", out)
    found = json.loads(out.read_text())
    scores = {"distance", "neighbours", "mahalanobis", "energy", "max_logit", "entropy"}
    assert found["auroc"].keys() == scores | {"confidence"}
    assert found["auroc"]["distance"]["all"] > 0.95 and "distance" in shown
    assert len(found["auroc"]["distance"]) == 3
    counts = {row["group"]: row["count"] for row in found["images"].values()}
    assert counts == {"inside": 8, "outside": 6}

    predictor = Predictor.from_pretrained(fitted, "cpu", engine="pytorch")
    distances = {
        kind: [
            predictor.predict(cv2.imread(str(path))[..., ::-1].copy()).domain_distance
            for path in sorted((root / kind / "images").iterdir())[-6:]
        ]
        for kind in (CALM, BUSY)
    }
    medians = [np.median(each) for each in distances.values()]
    assert medians[0] < 1 < medians[1]
    far = next(row for row in found["images"].values() if row["group"] == "outside")
    assert far["median_distance"] == pytest.approx(medians[1], rel=1e-3)


def test_a_comparison_needs_statistics(config: Path, write_model: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match="run `emu domain fit` first"):
        invoke("domain", "compare", config, "--model", write_model())


def test_auroc_counts_ties_half() -> None:
    assert auroc(np.array([1.0, 2.0]), np.array([2.0, 3.0])) == pytest.approx(3.5 / 4)
    assert auroc(np.array([5.0]), np.array([1.0])) == 0
