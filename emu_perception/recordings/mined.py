"""Chosen frames as a folder that an annotation tool can take."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from emu_perception.atomic import replacing_folder
from emu_perception.evaluation.result import write_json
from emu_perception.images import write_png
from emu_perception.inference.predictor import Predictor
from emu_perception.recordings.mine import (
    Candidate,
    CandidatePool,
    chosen_images,
    predict_maps,
    uncertainty_maps,
)
from emu_perception.recordings.problems import Problems
from emu_perception.recordings.reader import BagReader
from emu_perception.recordings.recording import ImageDecoder, RecordedImage
from emu_perception.visualization.colors import colorize_scalar

MANIFEST = "manifest.json"


def check_folder(folder: Path) -> None:
    """ValueError unless a folder can be written to without touching what is there."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ValueError(f"{folder} exists already: remove it or write elsewhere")


def write_frames(
    folder: Path,
    bag: BagReader,
    topic: str,
    pool: CandidatePool,
    chosen: Iterable[Candidate],
    predictor: Predictor,
    min_gap: float,
) -> Path:
    """Write images, predicted labels, uncertainty pictures and the manifest, which is returned.

    The folder appears once all are written.

    Args:
        folder: a new one.
        bag: the open recording.
        topic: with the images.
        pool: that the frames were chosen from.
        chosen: the frames, the best first.
        predictor: gives labels and uncertainties.
        min_gap: seconds between frames, as requested.
    """
    with replacing_folder(folder) as partial:
        _write_all(partial, bag, topic, pool, list(chosen), predictor, min_gap)
    return folder / MANIFEST


def _write_all(
    folder: Path,
    bag: BagReader,
    topic: str,
    pool: CandidatePool,
    chosen: list[Candidate],
    predictor: Predictor,
    min_gap: float,
) -> None:
    decoder = ImageDecoder(bag, topic, Problems())  # the first reading counted them
    found = {
        candidate.index: _write_frame(folder, candidate, recorded, predictor)
        for candidate, recorded in chosen_images(decoder, chosen)
    }
    entries = [
        {
            "rank": rank,
            "index": candidate.index,
            "stamp_ns": candidate.stamp_ns,
            "topic": topic,
            "score": pool.score(candidate),
            "uncertainty": candidate.uncertainty,
            **found[candidate.index],
        }
        for rank, candidate in enumerate(chosen, 1)
    ]
    label_set = predictor.label_set
    manifest = {
        "recording": str(bag.path),
        "model": str(predictor.path),
        "frames_read": pool.frames,
        "min_gap_seconds": min_gap,
        "classes": label_set.to_dict()["classes"] if label_set else [],
        "unlabelled": 255,
        "frames": entries,
    }
    write_json(folder / MANIFEST, manifest)


def _write_frame(
    folder: Path, candidate: Candidate, recorded: RecordedImage, predictor: Predictor
) -> dict[str, Any]:
    maps = predict_maps(predictor, recorded)
    name = f"{candidate.index:06d}.png"
    entry: dict[str, Any] = {"image": _write(folder, "images", name, recorded.image)}
    if maps.prediction.labels is not None:
        entry["labels"] = _write(folder, "labels", name, maps.labels)
    entry["uncertainty_pictures"] = {}
    for kind, values in uncertainty_maps(maps, predictor).items():
        finite = values[np.isfinite(values)]
        # Each picture has its own scale: what is small is still worth seeing where it is.
        high = max(float(np.percentile(finite, 99)) if finite.size else 0.0, 1e-6)
        picture = colorize_scalar(values, 0.0, high, "magma")
        file = _write(folder, kind, name, picture)
        entry["uncertainty_pictures"][kind] = {"file": file, "brightest": high}
    return entry


def _write(folder: Path, kind: str, name: str, pixels: np.ndarray) -> str:
    write_png(folder / kind / name, pixels)
    return f"{kind}/{name}"
