"""The node's state as one DiagnosticStatus."""

from __future__ import annotations

import time
from dataclasses import dataclass

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from emu_perception.ros.settings import Settings
from emu_perception.ros.statistics import Snapshot

LOST_FRACTION = 0.2
"""Fraction of the sent images; above it, diagnostics warn."""
PROFILE_HINT = (
    "set FASTDDS_DEFAULT_PROFILES_FILE to the package's config/node/fastdds.xml in the camera's "
    "process too: without it most images above 512 kB are lost"
)
OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


@dataclass(frozen=True)
class NodeState:
    """State of the node that the counters do not contain."""

    name: str
    """Fully qualified node name."""
    lifecycle: str
    """Label of the lifecycle state."""
    input_topic: str = ""
    input_publishers: int = 0
    input_problem: str = ""
    """Why no image can come."""
    cameras: tuple[str, ...] = ()
    """Cameras with statuses of their own."""
    model: str = ""
    device: str = ""
    precision: str = ""
    failure: str = ""
    """Why the last transition failed."""


def diagnose(state: NodeState, counts: Snapshot, settings: Settings) -> DiagnosticStatus:
    """Level, message and values for /diagnostics."""
    status = DiagnosticStatus(name=state.name, hardware_id=state.device or "none")
    findings = _findings(state, counts, settings)
    status.level = max((level for level, _ in findings), default=OK)
    status.message = "; ".join(message for _, message in findings) or _activity(state, counts)
    values = {
        "state": state.lifecycle,
        "input": state.input_topic,
        "model": state.model,
        "device": state.device,
        "precision": state.precision,
        "rate [Hz]": f"{counts.rate:.2f}",
        "received": counts.received,
        "answered": counts.answered,
        "dropped": counts.lost + counts.overtaken,
        "dropped before the node": counts.lost,
        "recently dropped before the node [%]": f"{100 * counts.lost_fraction:.1f}",
        "dropped for a newer one": counts.overtaken,
        "not wanted": counts.unwanted,
        "jumps back in time": counts.time_jumps,
    }
    for name in ("latency", "inference", "overhead"):
        for label, value in counts.percentiles(name).items():
            values[f"{name} {label} [ms]"] = f"{1e3 * value:.2f}"
    for name, unit in (("semantic_uncertainty", ""), ("depth_std", " [m]")):
        mean = counts.mean(name)
        if mean is not None:
            values[f"mean {name.replace('_', ' ')}{unit}"] = f"{mean:.4f}"
    distance = counts.mean("domain_distance")
    if distance is not None:
        values["domain distance"] = f"{distance:.3f}"
    values.update({f"bad input: {kind}": count for kind, count in sorted(counts.bad.items())})
    status.values = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
    return status


def _activity(state: NodeState, counts: Snapshot) -> str:
    if state.lifecycle != "active":
        return state.lifecycle
    if state.cameras:
        return f"{len(state.cameras)} cameras: {', '.join(state.cameras)}"
    return "running" if counts.listening_since is not None else "idle: no subscribers"


def _findings(state: NodeState, counts: Snapshot, settings: Settings) -> list[tuple[bytes, str]]:
    findings = []
    if state.failure:
        findings.append((ERROR, state.failure))
    if state.lifecycle == "active" and state.input_problem:
        findings.append((WARN, state.input_problem))
    if state.lifecycle == "active" and counts.listening_since is not None:
        findings += _staleness(state, counts, settings)
        findings += _losses(state, counts)
        findings += _uncertainty(counts, settings)
        findings += _domain(counts, settings)
    findings += [(WARN, message) for message in counts.recent_bad.values()]
    return findings


def _staleness(state: NodeState, counts: Snapshot, settings: Settings) -> list[tuple[bytes, str]]:
    limit = settings.alarm_staleness
    newest = counts.last_received or counts.listening_since
    age = time.monotonic() - newest if newest is not None else 0.0
    if limit <= 0 or age <= limit:
        return []
    message = f"no image on {state.input_topic} for {age:.1f} s"
    if state.input_publishers and counts.last_received is None:
        message += f" although it has a publisher; {PROFILE_HINT}"
    return [(ERROR, message)]


def _losses(state: NodeState, counts: Snapshot) -> list[tuple[bytes, str]]:
    if counts.lost_fraction <= LOST_FRACTION:
        return []
    return [
        (
            WARN,
            f"{100 * counts.lost_fraction:.0f} % of the images on {state.input_topic} are lost "
            f"before the node; {PROFILE_HINT}",
        )
    ]


def _uncertainty(counts: Snapshot, settings: Settings) -> list[tuple[bytes, str]]:
    findings = []
    for name, limit, unit in (
        ("semantic_uncertainty", settings.alarm_semantic_uncertainty, ""),
        ("depth_std", settings.alarm_depth_uncertainty, " m"),
    ):
        mean = counts.mean(name)
        if limit > 0 and mean is not None and mean > limit:
            findings.append(
                (WARN, f"mean {name.replace('_', ' ')} {mean:.3g}{unit} is above {limit:g}{unit}")
            )
    return findings


def _domain(counts: Snapshot, settings: Settings) -> list[tuple[bytes, str]]:
    limit, distance = settings.alarm_domain_distance, counts.mean("domain_distance")
    if limit <= 0 or distance is None or distance <= limit:
        return []
    return [
        (
            WARN,
            f"the images are unlike the model's training data: domain distance {distance:.2f} is "
            f"above {limit:g}; do not rely on classes, depth or their uncertainties",
        )
    ]
