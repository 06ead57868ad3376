"""Pictures and table of the demo: panels of recorded frames, an overview, the figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from emu_perception.cli.demo.run import (
    DIAGNOSTICS,
    MAP_TOPICS,
    DemoResult,
)
from emu_perception.images import write_png
from emu_perception.labels import LabelSet
from emu_perception.messages.images import map_values
from emu_perception.prediction import Prediction
from emu_perception.recordings.image_messages import header_stamp_ns, rgb
from emu_perception.recordings.published import prediction_of
from emu_perception.recordings.reader import BagError, BagReader
from emu_perception.visualization.panels import (
    common_scales,
    contact_sheet,
    panel,
)


@dataclass(frozen=True)
class RecordedFrame:
    """An image as it was played and what was recorded for its stamp."""

    stamp_ns: int
    image: np.ndarray
    prediction: Prediction


def recorded_frames(
    drive: Path, recording: Path, label_set: LabelSet | None, count: int, image_topic: str | None
) -> list[RecordedFrame]:
    """Up to `count` frames that were answered completely, spread evenly over the drive."""
    with BagReader(recording) as bag:
        recorded = {t.name for t in bag.topics if t.count}
        topics = [t for names in MAP_TOPICS.values() for t in names if t in recorded]
        arrived: dict[int, set[str]] = {}
        for message in bag.messages(topics):
            arrived.setdefault(header_stamp_ns(message.data), set()).add(message.topic)
        complete = sorted(s for s, names in arrived.items() if len(names) == len(topics))
        chosen = set(_spread(complete, count))
        maps: dict[int, dict[str, np.ndarray]] = {stamp: {} for stamp in chosen}
        for message in bag.messages(topics):
            stamp = header_stamp_ns(message.data)
            if stamp in chosen:
                maps[stamp][message.topic.lstrip("/")] = map_values(bag.decode(message))
    images: dict[int, np.ndarray] = {}
    with BagReader(drive) as bag:
        for message in bag.messages([bag.image_topic(image_topic).name]):
            stamp = header_stamp_ns(message.data)
            if stamp in chosen:
                images[stamp] = rgb(bag.decode(message))
    classes = len(label_set) if label_set else 0
    return [
        RecordedFrame(stamp, images[stamp], prediction_of(maps[stamp], classes))
        for stamp in sorted(chosen & set(images))
    ]


def _spread(values: list[int], count: int) -> list[int]:
    if len(values) <= count:
        return values
    return [values[round(i * (len(values) - 1) / max(count - 1, 1))] for i in range(count)]


def write_pictures(
    frames: list[RecordedFrame], label_set: LabelSet | None, title: str, folder: Path
) -> list[Path]:
    """A panel of each frame in `panels/`, and `overview.png`; all on the same scales."""
    panels = folder / "panels"
    panels.mkdir(parents=True, exist_ok=True)
    for stale in panels.glob("frame_*.png"):
        stale.unlink()
    scales = common_scales([f.prediction for f in frames])
    written = []
    begin = frames[0].stamp_ns
    for index, frame in enumerate(frames):
        time_s = (frame.stamp_ns - begin) * 1e-9
        picture = panel(
            frame.image,
            frame.prediction,
            label_set,
            title=f"{title}, {time_s:.1f} s",
            scales=scales,
        )
        written.append(panels / f"frame_{index:02d}.png")
        write_png(written[-1], picture)
    overview = contact_sheet([(f.image, f.prediction) for f in frames], label_set, title=title)
    write_png(folder / "overview.png", overview)
    return [folder / "overview.png", *written]


def node_diagnostics(recording: Path) -> dict[str, str]:
    """The key-value pairs of the node's last diagnostics; empty where none were recorded."""
    values: dict[str, str] = {}
    with BagReader(recording) as bag:
        if DIAGNOSTICS[0] not in {t.name for t in bag.topics}:
            return values
        for message in bag.messages([DIAGNOSTICS[0]]):
            try:
                statuses: Any = bag.decode(message).status
            except BagError:
                continue
            for status in statuses:
                values.update({pair.key: pair.value for pair in status.values})
    return values


def table(result: DemoResult, about: Mapping[str, str]) -> Table:
    """The result for the terminal."""
    share = result.frames_dropped / result.frames_sent
    rows = {
        **about,
        "frames sent": f"{result.frames_sent} at {result.sent_rate_hz:.1f} Hz",
        "frames answered": f"{result.frames_answered} at {result.answered_rate_hz:.1f} Hz",
        "frames dropped": f"{result.frames_dropped} ({share:.0%})",
        "latency p50 / p95 / max": f"{result.latency_p50_ms:.0f} / {result.latency_p95_ms:.0f} / "
        f"{result.latency_max_ms:.0f} ms, from publishing an image to receiving its last map",
        "node start": f"{result.node_start_s:.1f} s",
    }
    if result.frames_dropped:
        rows["why dropped"] = (
            "the node takes the newest image first; older ones are dropped when the network "
            "needs longer than the camera's period"
        )
    grid = Table(show_header=False, box=None, padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column()
    for name, value in rows.items():
        grid.add_row(name, value)
    return grid
