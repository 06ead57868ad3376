"""The report of an evaluation: one HTML file that works offline, and its figures as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from emu_perception.atomic import replacing
from emu_perception.evaluation import figures
from emu_perception.evaluation.frames import RANKINGS, Frame, FrameLog
from emu_perception.evaluation.result import Evaluation, json_text
from emu_perception.labels import LabelSet
from emu_perception.visualization.panels import common_scales

HTML_FILE, JSON_FILE, TABLE_FILE = "report.html", "report.json", "frames.csv"


def _certainty(task: str) -> dict[str, tuple[str, str, str]]:
    return {
        f"{task}.p_accurate_certain": (
            *("p(accurate|certain)", ""),
            "of the certain pixels, the right",
        ),
        f"{task}.p_uncertain_inaccurate": (
            *("p(uncertain|inaccurate)", ""),
            "of the wrong pixels, those that are said to be uncertain",
        ),
        f"{task}.pavpu": ("PAvPU", "", "fraction of pixels that are right and certain, or neither"),
    }


SUMMARY: dict[str, tuple[str, str, str]] = {
    "semantic.miou": ("mIoU", "", "mean intersection over union of the classes; 1 is perfect"),
    "semantic.pixel_accuracy": ("Pixel accuracy", "", "fraction of labelled pixels that are right"),
    "semantic.ece": ("ECE", "", "how far confidence is from accuracy; 0 is calibrated"),
    "semantic.nll": ("NLL", "nats", "negative log-likelihood of the true class; lower is better"),
    "semantic.brier": ("Brier score", "", "squared error of the probabilities; lower is better"),
    **_certainty("semantic"),
    "semantic.error_auroc": ("Error AUROC", "", "0.5: uncertainty is chance; 1: finds every error"),
    "semantic.ause": ("AUSE", "", "area between uncertainty and oracle; 0 ranks perfectly"),
    "depth.rmse": ("RMSE", "m", "over all pixels with a true depth"),
    "depth.absrel": ("AbsRel", "", "mean of |error| / true depth"),
    "depth.delta1": ("δ < 1.25", "", "fraction of pixels within a quarter of the truth"),
    "depth.nll": ("NLL", "", "Gaussian negative log-likelihood; lower is better"),
    "depth.coverage_1sigma": ("Within 1 σ", "", "0.683 if the deviation is calibrated"),
    "depth.coverage_2sigma": ("Within 2 σ", "", "0.954 if the deviation is calibrated"),
    "depth.ence": ("ENCE", "", "how far the deviation is from the error; 0 is calibrated"),
    **_certainty("depth"),
    "depth.ause": ("AUSE", "m", "area between uncertainty and oracle; 0 ranks perfectly"),
    "depth_of_classes.absrel": ("AbsRel", "", "mean of |error| / true depth"),
    "depth_of_classes.delta1": ("δ < 1.25", "", "fraction of pixels within a quarter of the truth"),
    "depth_of_classes.rmse": ("RMSE", "m", "over these pixels with a true depth"),
    "depth_of_classes.coverage_1sigma": ("Within 1 σ", "", "0.683 if the deviation is calibrated"),
    "domain.mean_distance": ("Mean distance", "", "from the training domain; above 1: unfamiliar"),
    "domain.above_threshold": ("Above 1", "", "fraction of the images outside the training domain"),
    "mean_uncertainty.semantic": ("Mean entropy / ln C", "", "0: certain everywhere; 1: no idea"),
    "mean_uncertainty.semantic_epistemic": ("Mean mutual information / ln C", "", "epistemic part"),
    "mean_uncertainty.depth": ("Mean deviation of depth", "m", "over the pixels with a depth"),
    "mean_uncertainty.depth_epistemic": ("Its epistemic part", "m", ""),
}
"""Name, unit and meaning of the figures in the summary."""
GROUPS = {
    "semantic": "Classes",
    "depth": "Depth",
    "depth_of_classes": "Depth of {classes}",
    "domain": "Training domain",
    "mean_uncertainty": "Uncertainty",
}
TIMELINE = {
    "mean_uncertainty.semantic": "entropy / ln C",
    "mean_uncertainty.semantic_epistemic": "epistemic",
    "mean_uncertainty.depth": "deviation / m",
    "domain.mean_distance": "domain distance",
    "semantic.miou": "mIoU",
    "depth.rmse": "RMSE / m",
}


@dataclass(frozen=True)
class Report:
    """Content of a report in addition to the figures."""

    title: str
    about: Mapping[str, str]
    """Description of the evaluation by name: model, recording or data set, device."""
    label_set: LabelSet | None = None
    problems: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """`count` and `examples` of what could not be read or scored, by kind."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Why figures are missing, by dotted key, where that is more than the evaluator knows."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further keys of `report.json`."""


def write_report(folder: Path, report: Report, result: Evaluation, log: FrameLog) -> Path:
    """Write `report.html` and `report.json` next to the `frames.csv` of the log.

    An earlier report stays as it is until the new one is complete.

    Returns:
        The HTML file.
    """
    values = report_values(report, result)
    environment = Environment(
        loader=PackageLoader("emu_perception.evaluation", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("report.html.j2").render(
        report=report,
        values=values,
        groups=_summary(values),
        diagrams=_diagrams(values, report),
        timeline=_timeline(log),
        galleries=_galleries(log, report.label_set),
        legend=_legend(report.label_set),
        scalars={k: _shown(v) for k, v in Evaluation(values).scalars().items()},
        files=(JSON_FILE, TABLE_FILE),
    )
    path = folder / HTML_FILE
    with replacing(folder / JSON_FILE) as figures_file, replacing(path) as page:
        figures_file.write_text(json_text(values), encoding="utf-8")
        page.write_text(html, encoding="utf-8")
    log.close()
    return path


def summary_lines(result: Evaluation) -> list[str]:
    """Main metrics for the terminal, one per line, with units and intervals."""
    scalars, intervals = result.scalars(), result.values.get("intervals") or {}
    lines = []
    for key, (name, unit, _) in SUMMARY.items():
        if key in scalars:
            group = GROUPS[key.partition(".")[0]].lower()
            line = f"{group + ':':<13}{name:<28}{_shown(scalars[key])} {unit}".rstrip()
            ends = intervals.get(key)
            lines.append(line + (f"  [{_shown(ends[0])}, {_shown(ends[1])}]" if ends else ""))
    return lines


def report_values(report: Report, result: Evaluation) -> dict[str, Any]:
    """Return the content of `report.json`: `report.extra`, results, `problems` and `missing`."""
    missing = {
        key: _longest_prefix(report.reasons, key) or reason
        for key, reason in result.values["missing"].items()
    }
    return {
        **report.extra,
        **result.values,
        "missing": missing,
        "problems": {kind: dict(found) for kind, found in report.problems.items()},
    }


def _longest_prefix(reasons: Mapping[str, str], key: str) -> str | None:
    fitting = [known for known in reasons if key == known or key.startswith(f"{known}.")]
    return reasons[max(fitting, key=len)] if fitting else None


def _summary(values: dict[str, Any]) -> list[tuple[str, list[dict[str, str]]]]:
    """Rows of the summary table by group: figures there are, and those that are missing."""
    evaluation = Evaluation(values)
    groups: dict[str, list[dict[str, str]]] = {}
    for key, (name, unit, meaning) in SUMMARY.items():
        group, _, figure = key.partition(".")
        part = evaluation[group]
        if part is None or (group == "mean_uncertainty" and figure not in part):
            continue
        value = part.get(figure)
        ends = values.get("intervals", {}).get(key)
        groups.setdefault(group, []).append(
            {
                "name": name,
                "value": "–" if value is None else f"{_shown(value)} {unit}".strip(),
                "interval": f"{_shown(ends[0])} … {_shown(ends[1])}" if ends else "",
                "meaning": values["missing"].get(key, meaning) if value is None else meaning,
            }
        )
    classes = ", ".join(values["settings"]["depth_classes"])
    return [(GROUPS[group].format(classes=classes), rows) for group, rows in groups.items()]


def _diagrams(values: dict[str, Any], report: Report) -> list[tuple[str, str, Markup]]:
    """Heading, caption and drawing of each diagram that there are figures for."""
    semantic, depth = values["semantic"] or {}, values["depth"] or {}
    found = []
    if semantic.get("reliability"):
        found.append(
            (
                "Class reliability",
                "Below the dotted line the model is overconfident.",
                figures.semantic_reliability(semantic["reliability"]),
            )
        )
    if semantic.get("sparsification"):
        found.append(
            (
                "Class sparsification",
                "The nearer to the oracle, the better the uncertainty ranks errors.",
                figures.sparsification(semantic["sparsification"], "error rate of the rest"),
            )
        )
    if any(iou is not None for iou in semantic.get("class_iou", {}).values()):
        found.append(
            (
                "Intersection over union by class",
                "Those that occur in truth or prediction.",
                figures.class_iou(semantic["class_iou"], report.label_set),
            )
        )
    if depth.get("reliability"):
        found.append(
            (
                "Depth error against predicted deviation",
                "Above the dotted line the model is overconfident.",
                figures.depth_reliability(depth["reliability"]),
            )
        )
    if depth.get("sparsification"):
        found.append(
            (
                "Depth sparsification",
                "The nearer to the oracle, the better the uncertainty ranks errors.",
                figures.sparsification(depth["sparsification"], "RMSE of the rest / m"),
            )
        )
    if depth.get("by_distance"):
        found.append(
            (
                "Depth error by distance",
                "Where the bars are equal the deviation is right on average.",
                figures.depth_by_distance(depth["by_distance"]),
            )
        )
    return [(heading, caption, Markup(svg)) for heading, caption, svg in found]


def _timeline(log: FrameLog) -> Markup | None:
    if not any(log.timeline.curve(key)[0] for key in TIMELINE):
        return None
    xlabel = "time / s" if log.has_times else "frame"
    return Markup(figures.timeline(log.timeline, TIMELINE, xlabel))


def _galleries(log: FrameLog, label_set: LabelSet | None) -> list[tuple[str, list[dict[str, Any]]]]:
    """Frames to look at, by why; all on common scales."""
    shown: dict[str, Frame] = {f.name: f for frames in log.kept.values() for f in frames}
    scales = common_scales([frame.prediction for frame in shown.values()])
    pictures = {
        name: figures.frame_pictures(frame, label_set, scales) for name, frame in shown.items()
    }
    galleries = []
    for ranking in RANKINGS:
        frames = [
            {"about": _describe(frame), "pictures": pictures[frame.name]}
            for frame in log.kept[ranking]
        ]
        if frames:
            galleries.append((ranking.title, frames))
    return galleries


def _legend(label_set: LabelSet | None) -> list[tuple[str, str]]:
    """Names and CSS colours of the classes."""
    if label_set is None:
        return []
    pairs = zip(label_set.names, label_set.colors, strict=True)
    return [(name, "rgb({}, {}, {})".format(*color)) for name, color in pairs]


def _describe(frame: Frame) -> str:
    about = [f"Frame {frame.index} ({frame.name})"]
    if frame.time is not None:
        about.append(f"{frame.time:.2f} s")
    for key in (
        "semantic.miou",
        "depth.rmse",
        "mean_uncertainty.semantic",
        "mean_uncertainty.depth",
        "domain.mean_distance",
    ):
        if key in frame.figures:
            name, unit, _ = SUMMARY[key]
            name = name[0].lower() + name[1:] if name.startswith("Mean") else name
            about.append(f"{name} {_shown(frame.figures[key])} {unit}".strip())
    return ", ".join(about)


def _shown(value: float) -> str:
    if isinstance(value, int):
        return f"{value:,}".replace(",", " ")
    return f"{value:.4g}" if abs(value) >= 1e-3 or value == 0 else f"{value:.2e}"
