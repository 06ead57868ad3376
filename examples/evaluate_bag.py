"""Evaluate a model on a rosbag2 recording, without ROS: metrics in constant memory.

python examples/evaluate_bag.py DRIVE --labels DRIVE_LABELS

`emu bag evaluate` does this with a report. Here are the parts, to build on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from emu_perception import Predictor
from emu_perception.evaluation import Evaluator
from emu_perception.recordings import BagReader
from emu_perception.recordings.frames import FrameReader
from emu_perception.recordings.problems import Problems
from emu_perception.recordings.truth import TruthFolder


def main() -> None:
    """Predict image by image, and print the metrics."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bag", type=Path)
    parser.add_argument("--labels", type=Path, help="folder of label PNGs, the i-th for image i")
    parser.add_argument("--model", default="street", help="model file or name (default: street)")
    arguments = parser.parse_args()

    predictor = Predictor.from_pretrained(arguments.model)
    depth_range = predictor.spec.depth_range if "depth" in predictor.spec.tasks else None
    evaluator = Evaluator(predictor.label_set, depth_range)
    problems = Problems()  # counts what cannot be read
    folders = []
    if arguments.labels is not None:
        folders.append(TruthFolder.open("labels", arguments.labels, "index", 1e-3))

    with BagReader(arguments.bag) as reader:
        for frame in FrameReader(reader, problems, folders=folders).frames():
            assert frame.image is not None
            maps = predictor.available_maps  # with the class probabilities, for NLL and Brier score
            prediction = predictor.predict(frame.image, frame.intrinsics, maps=maps)
            evaluator.update(prediction, frame.labels, frame.depth)
    if not evaluator.frames:
        raise SystemExit(f"{arguments.bag}: no image could be read")
    for key, value in evaluator.result(replicates=0).scalars().items():
        if key.count(".") == 1:
            print(f"{key:<36}{value:.4g}")
    for kind, found in problems.values().items():
        print(f"{found['count']} x {kind}: {found['examples'][0]}")


if __name__ == "__main__":
    main()
