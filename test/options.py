"""Options of the test run: `--fail-on-skips`, `--trials`."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fail-on-skips",
        action="store_true",
        help="fail if a test is skipped for a reason that `allowed_skips` does not list",
    )
    parser.addoption(
        "--trials",
        type=int,
        help="moments at which each test marked `moments` is tried, instead of its own few",
    )
    parser.addini("allowed_skips", "parts of the reasons of acceptable skips", type="linelist")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`@pytest.mark.moments(ARGUMENT, [...])` parametrizes a test with seconds.

    With `--trials N`, these are N moments at equal distances up to the last one.
    """
    marker = metafunc.definition.get_closest_marker("moments")
    if marker is None:
        return
    argument, seconds = marker.args
    trials = metafunc.config.getoption("--trials")
    if trials:
        seconds = [round(seconds[-1] * i / max(trials - 1, 1), 4) for i in range(trials)]
    metafunc.parametrize(argument, seconds)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """With `--fail-on-skips`, list the unexpected skips and fail."""
    if not session.config.getoption("--fail-on-skips") or hasattr(session.config, "workerinput"):
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    allowed = session.config.getini("allowed_skips")
    skips = [report.longrepr for report in reporter.stats.get("skipped", [])]
    for file, line, reason in skips:
        if not any(part in reason for part in allowed):
            reporter.write_line(f"\nunexpected skip: {file}:{line}: {reason}", red=True)
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
