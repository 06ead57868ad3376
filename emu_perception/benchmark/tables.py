"""The figures as Markdown tables."""

from __future__ import annotations

from collections.abc import Sequence

from emu_perception.benchmark.limits import Limit
from emu_perception.benchmark.matrix import Matrix, Row
from emu_perception.markdown import markdown_table

BUSY = 0.5
"""Load average per core from which on a machine is not quiet."""


def machine_line(matrix: Matrix) -> str:
    """On what, with what, under which load."""
    machine = matrix.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    before, after = matrix.load_average
    busy = ""
    if before > BUSY * machine["cores"]:
        busy = (
            ". The machine was busy before: threads that wait for each other suffer most from it, "
            "so these ratios do not show what holds on a quiet one"
        )
    return (
        f"{machine['device']}, {machine['threads']} CPU threads of {machine['cores']} cores; "
        f"{versions}; {matrix.rounds} rounds; load average {before:.1f} before, {after:.1f} after"
        f"{busy}"
    )


def markdown(matrix: Matrix) -> str:
    """Rows and peers as a table."""
    on_gpu = any(row.on_device for row in matrix.rows)
    head = ["network", "size", "engine", "precision", "median (p95), ms"]
    head += ["on the GPU, ms"] if on_gpu else []
    head += ["frames/s", "x eager peer", "x compiled peer", "memory, MB"]
    lines = []
    for peer in matrix.peers:
        cells = [f"peer: {peer.model}, class scores at 1/4", _size(peer.size), peer.kind]
        cells += [peer.precision, _time(peer.times), *([""] if on_gpu else [])]
        lines.append([*cells, f"{peer.times['per_second']:.1f}", "", "", ""])
    for row in matrix.rows:
        cells = [row.case.name, _size(row.case.size), row.engine, row.case.precision]
        cells += [_time(row.host), *([_time(row.best)] if on_gpu else [])]
        cells += [f"{row.best['per_second']:.1f}"]
        cells += [_ratio(row, "eager"), _ratio(row, "compiled"), _memory(row)]
        lines.append(cells)
    return markdown_table(head, lines)


def claims_markdown(claims: Sequence[Limit]) -> str:
    """Return the limits as a table."""
    lines = []
    for claim in claims:
        figure = "" if claim.figure is None else f"{claim.figure:.3g}"
        sign = "≤" if claim.at_most else "≥"
        lines.append([claim.name, f"{sign} {claim.limit:g}", figure, claim.outcome])
    return markdown_table(["must hold", "limit", "measured", "outcome"], lines)


def _size(size: tuple[int, int]) -> str:
    return f"{size[1]} x {size[0]}"


def _time(times: dict[str, float]) -> str:
    return f"{times['median']:.1f} ({times['p95']:.1f})"


def _ratio(row: Row, kind: str) -> str:
    return f"{row.over_peer[kind]:.2f}" if kind in row.over_peer else ""


def _memory(row: Row) -> str:
    taken = row.memory.get("gpu_reserved", row.memory.get("resident"))
    return "" if taken is None else f"{taken / 1e6:.0f}"
