"""The report as a person meets it: in a browser without a network, at two widths."""

import csv
import json
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu_perception.evaluation import Evaluator
from emu_perception.evaluation.frames import COLUMNS, KEPT, RANKINGS, Frame, FrameLog, Timeline
from emu_perception.evaluation.report import Report, write_report

pytest.importorskip("matplotlib", reason="drawing needs the extra [report]")

FRAMES = 12
PROBLEMS = {"ground truth": {"count": 3, "examples": ["frame 2 has <none>", "frame 5 has none"]}}
ABOUT = {"model": "a_model_with_quite_a_long_name.safetensors", "bag": "/drives/" + "x" * 60}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, make_frame, label_set):
    folder = tmp_path_factory.mktemp("report")
    evaluator = Evaluator(label_set, (0.1, 40.0))
    with FrameLog(folder, apart=0.25) as log:
        for i in range(FRAMES):
            prediction, labels, depth = make_frame(i)
            image = np.random.default_rng(i).integers(0, 256, (24, 32, 3), np.uint8)
            figures = evaluator.update(prediction, labels, depth, seconds=0.01)
            log.add(
                Frame(i, f"f{i}", prediction, figures, 10**18 + i, i / 10, image, labels, depth)
            )
        report = Report(
            "Model & <drive>", ABOUT, label_set, PROBLEMS, extra={"bag": "drive"}, reasons={}
        )
        write_report(folder, report, evaluator.result(20), log)
    return folder


def test_the_figures_lie_beside_the_page(folder):
    values = json.loads((folder / "report.json").read_text())
    assert values["frames"] == FRAMES
    assert values["bag"] == "drive"
    assert values["problems"] == PROBLEMS
    assert 0 < values["semantic"]["miou"] < 1
    assert values["depth"]["rmse"] > 0
    with (folder / "frames.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(COLUMNS)
    assert [row["name"] for row in rows] == [f"f{i}" for i in range(FRAMES)]
    assert [row["stamp_ns"] for row in rows][-1] == str(10**18 + FRAMES - 1)
    mean = np.mean([float(row["mean_uncertainty.depth"]) for row in rows])
    assert mean == pytest.approx(values["mean_uncertainty"]["depth"], rel=1e-3)


class _Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.addresses = []

    def handle_starttag(self, tag, attrs):
        self.addresses += [v for k, v in attrs if k in ("src", "href", "xlink:href")]


def test_the_page_needs_nothing_but_itself(folder):
    text = (folder / "report.html").read_text(encoding="utf-8")
    links = _Links()
    links.feed(text)
    outside = [a for a in links.addresses if not a.startswith(("data:", "#"))]
    assert sorted(outside) == ["frames.csv", "report.json"]
    assert "url(http" not in text
    assert "@import" not in text
    assert "<script" not in text
    assert "Model &amp; &lt;drive&gt;" in text
    assert "frame 2 has &lt;none&gt;" in text
    for heading in ("Class reliability", "Depth sparsification", "Timeline", "Lowest mIoU"):
        assert heading in text


@pytest.mark.parametrize(("width", "height"), [(1366, 768), (390, 844)], ids=["laptop", "phone"])
def test_a_browser_shows_it_without_complaint(folder, width, height):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    browser_path = next(filter(None, map(shutil.which, names)), None)
    if browser_path is None:
        pytest.skip(f"there is no browser: none of {', '.join(names)}")
    complaints = []
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": height}, offline=True)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda request: complaints.append(request.url))
        page.goto((folder / "report.html").as_uri())
        wide = page.evaluate(
            "[...document.querySelectorAll('main *')].filter(e => !e.closest('.wide'))"
            ".filter(e => e.getBoundingClientRect().right > innerWidth + 1)"
            ".map(e => e.tagName + ' ' + e.className)"
        )
        assert wide == [], "these reach beyond the window"
        smallest = page.evaluate(
            "Math.min(...[...document.querySelectorAll('svg text, p, td, dd, li, figcaption')]"
            ".filter(e => e.textContent.trim() && e.getBoundingClientRect().height > 0)"
            ".map(e => parseFloat(getComputedStyle(e).fontSize) * (e.closest('svg')"
            " ? e.closest('svg').getBoundingClientRect().width / e.closest('svg').viewBox"
            ".baseVal.width : 1)))"
        )
        assert smallest > 8.5, "pixels of the smallest lettering"
        broken = page.evaluate("[...document.images].filter(i => !i.naturalWidth).length")
        assert broken == 0
        shown = page.evaluate("document.images.length")
        assert shown >= 4 * KEPT
        browser.close()
    assert complaints == []


def test_frames_to_look_at_are_the_worst_and_apart(tmp_path, make_frame):
    prediction, _, _ = make_frame(0)
    worst = RANKINGS[0]
    values = [0.5, 0.4, 0.45, 0.9, 0.2, 0.21, 0.8, 0.3]
    with FrameLog(tmp_path, apart=0.25) as log:
        for i, value in enumerate(values):
            log.add(Frame(i, f"f{i}", prediction, {worst.figure: value}, time=0.1 * i))
    assert [frame.index for frame in log.kept[worst]] == [4, 7, 1]
    assert all(frame.prediction.probabilities is None for frame in log.kept[worst])
    assert not log.kept[RANKINGS[1]]


@given(
    st.lists(
        st.tuples(st.floats(-1e4, 1e4), st.floats(0, 1)),
        min_size=1,
        max_size=60,
        unique_by=lambda pair: pair[0],
    )
)
def test_a_timeline_stays_small_and_keeps_the_mean(points):
    timeline = Timeline(points=8)
    for time, value in points:
        timeline.add(time, {"x": value})
    times, values = timeline.curve("x")
    assert len(times) <= 8
    assert times == sorted(times)
    assert min(v for _, v in points) - 1e-9 <= min(values)
    assert max(values) <= max(v for _, v in points) + 1e-9
    if len(points) == 1:
        assert values == [points[0][1]]
    assert timeline.curve("y") == ([], [])
