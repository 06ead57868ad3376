"""Prediction and ground truth of one stamp; missing parts are counted."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from emu_perception.prediction import Prediction
from emu_perception.recordings.matching import Matched
from emu_perception.recordings.problems import Problems
from emu_perception.recordings.published import missing_maps, prediction_of
from emu_perception.recordings.truth import at_size


def published_prediction(
    matched: Matched, expected: Collection[str], classes: int, problems: Problems
) -> Prediction | None:
    """The prediction of a stamp; None, after it was counted, if its maps are not all there."""
    where = f"stamp {matched.stamp_ns} ns"
    maps = {name: matched.parts[name] for name in expected if name in matched.parts}
    if not maps:
        for part in matched.parts:
            problems.count(f"{part} without maps", where)
        return None
    missing = missing_maps(maps, expected)
    if missing:
        problems.count("incomplete maps", f"{where}: without {missing}")
        return None
    try:
        return prediction_of(maps, classes)
    except ValueError as error:
        problems.count("unusable maps", f"{where}: {error}")
        return None


def truth_of(
    matched: Matched, kinds: Collection[str], size: tuple[int, int], problems: Problems
) -> dict[str, np.ndarray]:
    """Ground truth that came on topics, at the size of the prediction."""
    found = {}
    where = f"stamp {matched.stamp_ns} ns"
    for kind in kinds:
        if kind not in matched.parts:
            problems.count(f"image without {kind}", where)
            continue
        try:
            found[kind] = at_size(matched.parts[kind], size)
        except ValueError as error:
            problems.count(f"unusable {kind}", f"{where}: {error}")
    return found
