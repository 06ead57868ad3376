"""Result of an evaluation.

The tasks and `out_of_distribution` are None without ground truth for them; single figures
are None where an input was missing, and `missing` has the reason.

- `frames`, `frames_with_labels`, `frames_with_depth`; `seconds_per_frame` as given to `update`, of
  `emu evaluate` the median over a few images at batch 1, timed apart from the scoring.
- of `emu evaluate` also `models`, `parameters`, `engine`, `device`, `precision`, `dataset`,
  `split`, and `calibration.` `scored` (`none`, `as stored`, `fitted`), `temperature`,
  `depth_variance_scale`, `fitted_on`.
- `semantic.` `miou` (over the confusion matrix of the set), `miou_image_mean`, `class_iou`,
  `pixel_accuracy`, `class_accuracy`; `nll` (nats), `brier`; `ece` (ten equal-width bins of the
  confidence), `ece_equal_mass`, `ece_top_label` (by predicted class), `ece_classwise` (of all
  class probabilities), `ece_boundary`, `ece_interior` (near to and far from boundaries of the
  truth), `mean_confidence`, `withheld_fraction` (predictions of 255).
- `depth.` `rmse` (m, over all valid pixels of the set), `rmse_image_mean`, `mae` (m), `absrel`,
  `sqrel` (m), `log10`, `inverse_mae` (1/m) and `inverse_absrel` (of 1 / depth, as on
  MTAN's Cityscapes), `silog` (×100, mean over images), `delta1`–`delta3` (max ratio below
  1.25^k; an invalid prediction counts as outside, while the errors leave it out), `nll` (Gaussian,
  without ½·ln 2π), `coverage_1sigma` (0.683 if calibrated), `coverage_2sigma` (0.954),
  `mean_normalized_squared_error` (1), `ence`, `by_distance`, `valid_fraction` (of the pixels with
  truth, those with a prediction).
- `depth_of_classes.` the same at the pixels predicted as one of `settings.depth_classes` (car,
  truck and bus, where the model has them), without `ause_boundary` and `ause_predicted_depth`.
- `domain.` `mean_distance` of the images from the training domain (1 = the alarm's threshold),
  `above_threshold` (fraction of the images).
- `normals.` `mean_angular_error`, `median_angular_error`, `rms_angular_error` (degrees),
  `within_11.25`, `within_22.5`, `within_30` (fractions).
- `edges.` `f1`, `precision`, `recall` of edge pixels at a probability of 0.5; `best_f1` and
  `best_threshold`, one threshold for the set; `ods_f`, the F-measure of thinned boundaries matched
  one to one within 0.75 % of the image's diagonal, at the best threshold for the set.
- `human_parts.` `miou`, `class_iou` over the pixels of the set; images without labelled parts do
  not count.
- `saliency.` `max_f` and `max_iou`: precision, recall and intersection over union averaged over
  images, at the best of 15 thresholds from 0.2 to 0.9.
- semantic and depth: `p_accurate_certain`, `p_uncertain_inaccurate`, `pavpu` at each image's mean
  uncertainty, averaged over images; `at_median.` the same at its median, `pooled.` (at the mean)
  over pixels; `at_80_percent_coverage.` and `sweep` with one threshold for the set (entropy /
  ln C, or m of standard deviation);
  `error_auroc` (does the uncertainty rank wrong pixels, or depths off by 1.25, above the
  others?), `aurc` (of the error rate), both with a `_bound` on what quantisation can change;
  `ause` (of the error rate, or of the RMSE in m) with `ause_random`, `ause_predicted_depth`,
  `ause_boundary` and `ause_image_mean`; curves `reliability` and `sparsification`.
- `out_of_distribution.SCORE.` `auroc`, `average_precision`, `fpr95`, `fraction`.
- `mean_uncertainty.` `semantic` and `semantic_epistemic` (as fractions of ln C), `depth` and
  `depth_epistemic` (standard deviations in m), over all pixels, with or without ground truth.
- `camera_height.CLIP.` `mean` (m over the road, by predicted depth and true classes), `variation`
  (deviation / mean over the images), `images`; of clips with several, scored by `emu evaluate`.
- `intervals`: 95 % bootstrap intervals of headline figures by dotted key; `interval_unit`: what was
  drawn for them: `clips`, `images`, or, where clips are long and fewer than ten, `blocks of N
  images`, consecutive ones.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emu_perception.atomic import write_text
from emu_perception.evaluation.depth import NEEDS as DEPTH_NEEDS
from emu_perception.evaluation.semantic import NEEDS as SEMANTIC_NEEDS
from emu_perception.tasks import other_tasks


@dataclass(frozen=True)
class Evaluation:
    """The figures of a set of frames; the docstring of this module explains the keys."""

    values: dict[str, Any]
    """Nested plain values, ready for JSON."""

    def __getitem__(self, key: str) -> Any:
        """A value by its dotted key, such as `semantic.miou`; None where the part is missing."""
        value: Any = self.values
        for part in key.split("."):
            if value is None:
                return None
            value = value[part]
        return value

    def scalars(self) -> dict[str, float]:
        """All single numbers by dotted key, without `settings`, `intervals` and missing ones."""
        found: dict[str, float] = {}

        def visit(prefix: str, value: Any) -> None:
            if isinstance(value, dict):
                for name, part in value.items():
                    visit(f"{prefix}.{name}" if prefix else name, part)
            elif isinstance(value, (int, float)):
                found[prefix] = value

        visit("", {k: v for k, v in self.values.items() if k not in ("settings", "intervals")})
        return found


def explain_missing(
    values: dict[str, Any], sums: Mapping[str, Collection[str]], baselines: bool
) -> dict[str, str]:
    """Fill in the keys that the inputs did not allow with None, with the reason.

    Args:
        values: what the tasks could compute; changed in place.
        sums: by task, the names of the sums there are.
        baselines: whether the baselines were requested.

    Returns:
        The reason by dotted key.
    """
    missing: dict[str, str] = {}
    for task, needs, truth in (
        ("semantic", SEMANTIC_NEEDS, "labels"),
        ("depth", DEPTH_NEEDS, "depth"),
    ):
        if values[task] is None:
            missing[task] = f"no frame came with both predicted and true {truth}"
            continue
        for name, (field, keys) in needs.items():
            absent = name not in sums[task]
            reason = f"the predictions had no {field}" if absent else "no pixel to judge it by"
            if absent and not baselines and keys in ("ause_boundary", "ause_predicted_depth"):
                reason = "baselines were switched off"
            for key in keys.split():
                if values[task].setdefault(key) is None:
                    missing[f"{task}.{key}"] = reason
    if values["depth_of_classes"] is None:
        missing["depth_of_classes"] = "no frame came with true depth and predicted classes for it"
    if values["domain"] is None:
        missing["domain"] = "the model has no statistics of its training domain"
    for task in other_tasks():
        if values[task] is None:
            missing[task] = f"no frame came with both predicted and true {task}"
    if values["out_of_distribution"] is None:
        missing["out_of_distribution"] = "no frame came with an out-of-distribution mask"
    if values["seconds_per_frame"] is None:
        missing["seconds_per_frame"] = "no frame came with the time it took"
    return missing


def look_up(values: Mapping[str, Any], key: str) -> Any:
    """A figure by its dotted key; None where it or a part of the way is missing."""
    found: Any = values
    for part in key.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def json_text(values: Any) -> str:
    """Plain values as JSON; NaN and infinity become null."""
    return json.dumps(_plain(values), indent=2, allow_nan=False) + "\n"


def write_json(path: Path, values: Any) -> None:
    """`json_text` as a file, whole or not at all."""
    write_text(path, json_text(values))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
