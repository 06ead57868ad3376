"""The report of a soak test: one HTML page that works offline, and its figures as JSON."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from emu_perception.atomic import write_text
from emu_perception.benchmark.soak.run import SoakResult
from emu_perception.evaluation.figures import timeline
from emu_perception.evaluation.frames import Timeline
from emu_perception.evaluation.result import write_json

HTML_FILE, JSON_FILE = "soak.html", "soak.json"
CURVES = {
    "resident_mb": "memory / MB",
    "threads": "threads",
    "descriptors": "descriptors",
    "latency_p50_ms": "latency p50 / ms",
    "latency_p95_ms": "latency p95 / ms",
}


def write_report(folder: Path, result: SoakResult) -> Path:
    """Write `soak.html` and `soak.json`.

    Returns:
        The HTML file.
    """
    write_json(folder / JSON_FILE, report_values(result))
    environment = Environment(
        loader=PackageLoader("emu_perception.evaluation", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    times = Timeline()
    for sample in result.samples:
        values = {key: getattr(sample, key) for key in CURVES}
        times.add(sample.minutes, {k: v for k, v in values.items() if v is not None})
    html = environment.get_template("soak.html.j2").render(
        about=_about(result),
        checks=result.checks,
        holds=result.holds,
        curves=Markup(timeline(times, CURVES, "time / min")) if result.samples else "",
        actions=Counter(action["action"] for action in result.actions),
        status=result.status,
        data=JSON_FILE,
    )
    write_text(folder / HTML_FILE, html)
    return folder / HTML_FILE


def report_values(result: SoakResult) -> dict[str, Any]:
    """Return the content of `soak.json`."""
    return {
        **asdict(result),
        "checks": [check.to_dict() for check in result.checks],
        "holds": result.holds,
    }


def _about(result: SoakResult) -> dict[str, str]:
    answered = result.status.get("answered", "0")
    return {
        "model": result.model,
        "duration": f"{result.minutes:g} min",
        "seed": str(result.seed),
        "images": f"{result.images_sent} sent, {result.status.get('received', '0')} received, "
        f"{answered} answered, {result.status.get('dropped', '0')} dropped",
        "cameras killed": str(result.cameras_killed),
        "machine": f"{result.machine.get('device')}, {result.machine.get('cores')} cores",
    }
