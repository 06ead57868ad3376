"""Performance limits that `emu benchmark --check` checks on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from emu_perception.benchmark.cases import Case
from emu_perception.benchmark.deployment import VGA, Deployment
from emu_perception.benchmark.limits import Limit

if TYPE_CHECKING:
    from emu_perception.benchmark.matrix import Matrix, Row

CITYSCAPES = (1024, 2048)
CPU_THREADS = 2
TEACHER = 10
"""Members."""


def cases_to_check(device: str) -> list[Case]:
    """The cases that the claims about a device need."""
    if device == "cpu":
        return [Case("mit_b0", VGA), Case("mit_b2", VGA)]
    student = Case("mit_b2", VGA, device, "fp16", "cuda_graph")
    return [
        student,
        student.ensemble("deep_ensemble", TEACHER),
        replace(student, model="mit_b5"),
        replace(student, size=CITYSCAPES),
    ]


def check_claims(matrix: Matrix, deployments: Sequence[Deployment] = ()) -> list[Limit]:
    """All claims: those about the device that was measured, and why the others were not."""
    measured = {row.case.device for row in matrix.rows}
    on_cpu, on_gpu = "cpu" in measured, bool(measured - {"cpu"})
    return [
        *_check_cpu(matrix, "" if on_cpu else "this run was on a GPU"),
        *(claim for each in deployments for claim in _check_deployment(each)),
        *_check_gpu(matrix, "" if on_gpu else "no GPU was measured"),
    ]


def _check_cpu(matrix: Matrix, why_not: str) -> list[Limit]:
    claims = []
    for model, limit in (("mit_b0", 3.0), ("mit_b2", 5.0)):
        row = _row(matrix, model, VGA, "fp32")
        claims.append(
            Limit(
                f"{model}, 640 x 480, {CPU_THREADS} CPU threads, all maps: times as fast as the "
                "peer's class scores",
                limit,
                row.over_peer.get("eager") if row else None,
                why_not,
            )
        )
    return claims


def _check_deployment(found: Deployment) -> list[Limit]:
    name = f"{found.model}, {found.image_size[1]} x {found.image_size[0]}"
    megabytes = 450 if found.model.startswith("mit_") else 350
    return [
        Limit(
            f"{name}: MB of resident memory",
            megabytes,
            found.resident_bytes / 1e6,
            at_most=True,
        ),
        Limit(
            f"{name}: seconds from process start to the first answer",
            2.5,
            found.start_seconds,
            at_most=True,
        ),
        Limit(f"{name}: imports of torch", 0, float(found.imports_torch), at_most=True),
    ]


def _check_gpu(matrix: Matrix, why_not: str) -> list[Limit]:
    student = _row(matrix, "mit_b2", VGA, "fp16")
    teacher = _row(matrix, "mit_b2", VGA, "fp16", TEACHER)
    largest = _row(matrix, "mit_b5", VGA, "fp16")
    street = _row(matrix, "mit_b2", CITYSCAPES, "fp16")

    def rate(row: Row | None) -> float | None:
        return row.best["per_second"] if row else None

    def slower(row: Row | None) -> float | None:
        return row.best["median"] / student.best["median"] if row and student else None

    peer = student.over_peer.get("eager") if student else None
    taken = student.memory.get("gpu_reserved") if student else None
    megabytes = None if taken is None else taken / 1e6
    return [
        Limit("mit_b2, 640 x 480, fp16: frames/s", 400, rate(student), why_not),
        Limit("mit_b2, 640 x 480, fp16: times as fast as the peer", 5, peer, why_not),
        Limit("mit_b5, 640 x 480, fp16: frames/s", 150, rate(largest), why_not),
        Limit("mit_b2, 2048 x 1024, fp16: frames/s", 80, rate(street), why_not),
        Limit(
            f"mit_b2, 640 x 480, fp16: time of a teacher of {TEACHER} over its student's",
            10,
            slower(teacher),
            why_not,
            at_most=True,
        ),
        Limit(
            "mit_b2, 640 x 480, fp16: MB of GPU memory that torch reserves",
            600,
            megabytes,
            why_not,
            at_most=True,
        ),
    ]


def _row(
    matrix: Matrix, model: str, size: tuple[int, int], precision: str, members: int = 1
) -> Row | None:
    found = matrix.find(model, size, precision, members)
    return found[0] if found else None
