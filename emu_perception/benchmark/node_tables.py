"""Tables of the node's benchmarks for the terminal."""

from __future__ import annotations

from rich.table import Table

from emu_perception.benchmark.node_cameras import CamerasBenchmark
from emu_perception.benchmark.node_results import NodeBenchmark


def node_table(result: NodeBenchmark) -> Table:
    timing, delivery, idle, overload = (
        result.timing,
        result.delivery,
        result.idle,
        result.overload,
    )
    table = Table(
        title=f"{result.model} on {result.device}, {result.precision}", title_justify="left"
    )
    table.add_column("measurement")
    table.add_column("value", justify="right")

    def part(title: str) -> None:
        table.add_row(f"[bold]{title}[/bold]")

    height, width = delivery.image_size
    part(f"Delivery, {width} x {height} at {delivery.sent_rate_hz:.1f} Hz")
    table.add_row("frames sent", f"{delivery.frames_sent}")
    table.add_row("frames in the node's callback", f"{delivery.frames_received}")
    table.add_row("frames lost", f"{delivery.frames_lost}")
    table.add_row("frames answered", f"{delivery.frames_answered}")
    table.add_section()
    height, width = timing.image_size
    part(f"Time per frame, {width} x {height} at {timing.rate_hz:.1f} Hz")
    table.add_row("frames answered", f"{timing.frames_answered} of {timing.frames_sent}")
    table.add_row(
        "predictor alone, median (mean)",
        f"{timing.predictor_median_ms:.1f} ms ({timing.predictor_mean_ms:.1f} ms)",
    )
    table.add_row(
        "inference in the node, median",
        f"{timing.inference_p50_ms:.1f} ms (x {timing.inference_ratio:.2f})",
    )
    table.add_row(
        "the node's own work, median (p95)",
        f"{timing.overhead_p50_ms:.1f} ms ({timing.overhead_p95_ms:.1f} ms)",
    )
    table.add_row(
        "camera to subscriber, median (p95)",
        f"{timing.latency_p50_ms:.1f} ms ({timing.latency_p95_ms:.1f} ms)",
    )
    table.add_section()
    throughput = result.throughput
    height, width = throughput.image_size
    part(f"Throughput, {width} x {height} at {throughput.rate_hz:.1f} Hz")
    table.add_row("predictor alone, per second", f"{throughput.predictor_per_second:.2f}")
    table.add_row(
        "answered per second (fraction)",
        f"{throughput.answered_per_second:.2f} ({throughput.ratio:.0%})",
    )
    table.add_row(
        "predictor under equal load, per second (fraction)",
        f"{throughput.loaded_per_second:.2f} ({throughput.loaded_ratio:.0%})",
    )
    table.add_section()
    height, width = overload.image_size
    part(f"A camera that is far too fast, {width} x {height} at {overload.rate_hz:g} Hz")
    table.add_row("answered per second", f"{overload.answered_per_second:.2f}")
    table.add_row("frames dropped, of", f"{overload.frames_dropped}, {overload.frames_sent}")
    table.add_row(
        "age when published, p99 (limit)",
        f"{overload.node_latency_p99_ms:.1f} ms ({overload.latency_limit_ms:.1f} ms)",
    )
    table.add_row(
        "resident memory of the node (growth)",
        f"{overload.resident_bytes / 1e6:.0f} MB ({overload.resident_growth_bytes / 1e6:+.0f} MB)",
    )
    for load in result.loads:
        table.add_section()
        height, width = load.image_size
        part(f"{width} x {height} at {load.rate_hz:g} Hz")
        table.add_row("frames answered", f"{load.frames_answered} of {load.frames_sent}")
        if load.latency_p50_ms is not None:
            table.add_row(
                "camera to subscriber, median (p99)",
                f"{load.latency_p50_ms:.1f} ms ({load.latency_p99_ms:.1f} ms)",
            )
    for peak in result.peaks:
        table.add_section()
        height, width = peak.image_size
        part(f"{width} x {height}, highest rate with fewer than 5 % dropped")
        sustained = f"{peak.rate_hz:.3g} Hz" if peak.sustained else "none found"
        table.add_row("rate", sustained)
    table.add_section()
    part("Nobody subscribes")
    table.add_row("frames sent", f"{idle.frames_sent}")
    table.add_row("inferences", f"{idle.inferences}")
    table.add_section()
    before, after = result.load_average
    table.add_row("load average before, after", f"{before:.1f}, {after:.1f}")
    return table


def cameras_table(result: CamerasBenchmark) -> Table:
    """Show a benchmark of several cameras."""
    height, width = result.image_size
    title = f"{result.model}, {len(result.cameras)} cameras of {width} x {height}"
    table = Table(title=f"{title} at {result.rate_hz:.1f} Hz each", title_justify="left")
    table.add_column("measurement")
    table.add_column("value", justify="right")
    table.add_row("predictor under equal load, per second", f"{result.loaded_per_second:.2f}")
    table.add_row(
        "answered per second (fraction)",
        f"{result.answered_per_second:.2f} ({result.loaded_ratio:.0%})",
    )
    for name, count in result.answered.items():
        table.add_row(f"answered of {name}", f"{count}")
    table.add_row("most over least answered", f"{result.fairness:.3f}")
    one, all_of_them = result.one_camera_bytes / 1e6, result.resident_bytes / 1e6
    table.add_row("resident memory, one camera", f"{one:.0f} MB")
    table.add_row(
        "resident memory, all (ratio)", f"{all_of_them:.0f} MB ({result.memory_ratio:.2f})"
    )
    before, after = result.load_average
    table.add_row("load average before, after", f"{before:.1f}, {after:.1f}")
    return table
