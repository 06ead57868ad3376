"""The benchmark of the engines: who takes turns, what holds, and the peer's likeness."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from emu_perception import cli
from emu_perception.benchmark.cases import Case, make_cases
from emu_perception.benchmark.claims import cases_to_check, check_claims
from emu_perception.benchmark.limits import failed
from emu_perception.benchmark.matrix import Matrix, Row
from emu_perception.benchmark.measure import Times, ratio, resident_bytes, take_turns
from emu_perception.benchmark.peer import check_kinds, peer_settings
from emu_perception.benchmark.tables import (
    claims_markdown,
    machine_line,
    markdown,
)
from emu_perception.inference.model_file import save_model
from emu_perception.inference.model_spec import ModelSpec
from emu_perception.labels import load_label_set
from emu_perception.networks.segdepthformer import SegDepthFormer


def row(case: Case, milliseconds: float, over_peer: float = 1.0, gpu_bytes: int = 0) -> Row:
    times = Times((milliseconds,), (milliseconds,)).summary()
    on_gpu = case.device != "cpu"
    memory = {"gpu_reserved": gpu_bytes} if on_gpu else {"resident": 10**9}
    return Row(case, "pytorch", times, times if on_gpu else None, {"eager": over_peer}, memory)


def matrix(*rows: Row) -> Matrix:
    machine = {"device": "a machine", "cores": 2, "threads": 2, "versions": {"torch": "2"}}
    return Matrix(machine, 1, list(rows))


def test_functions_take_turns_and_warm_up_does_not_count() -> None:
    calls: list[str] = []
    functions = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    times = take_turns(functions, rounds=3, warm_up=2, device="cpu")
    assert calls == ["a", "b"] * 5
    assert len(times["a"].wall) == len(times["b"].processor) == 3


def test_ratio_is_a_median_over_rounds() -> None:
    """A busy round slows both: it must not count as a slow peer."""
    ours, peer = Times((10, 100, 10), (0, 0, 0)), Times((30, 300, 20), (0, 0, 0))
    assert ratio(peer, ours) == pytest.approx(3)
    summary = peer.summary()
    assert summary["median"] == 30 and summary["minimum"] == 20
    assert summary["per_second"] == pytest.approx(1000 / 30)


def test_resident_memory_grows_with_what_is_held() -> None:
    before = resident_bytes()
    held = bytearray(b"x" * 64_000_000)
    assert resident_bytes() - before > 50_000_000
    assert len(held) == 64_000_000


def test_cpu_claims() -> None:
    b0, b2 = cases_to_check("cpu")
    found = check_claims(matrix(row(b0, 100, 3.1), row(b2, 500, 4.9)))
    outcomes = [claim.holds for claim in found]
    assert outcomes[:2] == [True, False] and set(outcomes[2:]) == {None}
    assert failed(found) and not failed([found[0], *found[2:]])
    text = claims_markdown(found)
    assert "| ≥ 5 | 4.9 | FAILS |" in text and "skipped: no GPU was measured" in text


def test_gpu_claims() -> None:
    student, teacher, largest, street = cases_to_check("cuda")
    rows = [
        row(student, 2.0, 6, 500_000_000),
        row(teacher, 21.0),
        row(largest, 6.0),
        row(street, 12.0),
    ]
    found = check_claims(matrix(*rows))[2:]
    assert [claim.holds for claim in found] == [True, True, True, True, False, True]
    # The fastest engine of a network counts.
    slow = row(replace(student, engine="other"), 20.0, 0.6)
    assert check_claims(matrix(slow, *rows))[2].figure == pytest.approx(500)


def test_cases_are_every_combination() -> None:
    cases = make_cases(
        ["mit_b0", "file.safetensors"],
        engines=["pytorch", "openvino"],
        sizes=[(32, 32), (64, 96)],
        precisions=["auto", "bf16"],
        device="cpu",
        members=3,
    )
    # Of a model file there are no ensembles.
    assert len(cases) == len(set(cases)) == 2 * 2 * 2 * (3 + 1)
    assert {case.precision for case in cases} == {"fp32", "bf16"}
    assert {case.members for case in cases if not case.is_random} == {1}


def test_kinds_of_the_peer() -> None:
    assert check_kinds(["none"]) == [] and check_kinds(["eager"]) == ["eager"]
    with pytest.raises(ValueError, match="eager, compiled or none, got 'fast'"):
        check_kinds(["fast"])


def test_the_peer_is_the_same_network() -> None:
    """SegFormer B0 with 40 classes here and there: as many parameters."""
    transformers = pytest.importorskip("transformers", reason="the extra [benchmark] is missing")
    with torch.device("meta"):
        settings = transformers.SegformerConfig(**peer_settings("mit_b0"))
        peer = transformers.SegformerForSemanticSegmentation(settings)
        ours = SegDepthFormer("mit_b0", 40, ("semantic",))
    counts = [sum(p.numel() for p in network.parameters()) for network in (peer, ours)]
    assert counts[0] == counts[1]


def test_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = ModelSpec(
        architecture="segdepthformer",
        backbone="mit_b0",
        tasks=("semantic", "depth"),
        arguments={"width": 16},
        label_set=load_label_set("camvid"),
        input_size=(64, 96),
    )
    model, found = tmp_path / "tiny.safetensors", tmp_path / "out" / "bench.json"
    save_model(model, spec.build(), spec)
    options = ["--model", model, "--engine", "pytorch", "--size", "96x64", "--rounds", "3"]
    options += ["--device", "cpu", "--threads", torch.get_num_threads(), "--no-memory"]
    options += ["--json", found, "--markdown", tmp_path / "out" / "bench.md"]
    monkeypatch.setattr(sys, "argv", ["emu", "benchmark", *map(str, options)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    (measured,) = json.loads(found.read_text())["rows"]
    assert measured["engine"] == "pytorch" and measured["case"]["size"] == [64, 96]
    assert 0 < measured["host"]["minimum"] <= measured["host"]["median"]
    assert "| tiny | 96 x 64 | pytorch | fp32 |" in capsys.readouterr().out


def test_a_gpu_table_has_a_column_of_its_own() -> None:
    student = cases_to_check("cuda")[0]
    assert "on the GPU" in markdown(matrix(row(student, 2.0)))
    assert "on the GPU" not in markdown(matrix(row(cases_to_check("cpu")[0], 2.0)))


def test_a_busy_machine_is_named() -> None:
    quiet = replace(matrix(), load_average=(0.3, 2.0))
    busy = replace(matrix(), load_average=(3.0, 2.0))
    assert "busy" not in machine_line(quiet)
    assert "was busy before" in machine_line(busy)
