"""Memory and start of a deployment file, measured in a process without PyTorch."""

from __future__ import annotations

from emu_perception.benchmark.claims import check_claims
from emu_perception.benchmark.deployment import Deployment, measure_deployment
from emu_perception.benchmark.matrix import Matrix
from emu_perception.inference.model_names import resolve_model_path


def test_the_default_model_runs_without_torch_in_little_memory() -> None:
    path = resolve_model_path("").with_suffix(".onnx")
    found = measure_deployment(path, (120, 160), 1)
    assert not found.imports_torch
    assert 50e6 < found.resident_bytes < 350e6
    assert found.start_seconds > 0


def test_limits_of_memory_and_start() -> None:
    matrix = Matrix({"device": "a machine", "cores": 2, "threads": 2, "versions": {}}, 1)
    small = Deployment("street.onnx", (480, 640), 340_000_000, 2.0, False)
    large = Deployment("mit_b0.onnx", (480, 640), 460_000_000, 3.0, True)
    claims = check_claims(matrix, [small, large])
    held = [claim.holds for claim in claims if claim.figure is not None]
    assert held == [True, True, True, False, False, False]
    assert claims[2].name == "street.onnx, 640 x 480: MB of resident memory"
