"""Makes unexpected skips fail: `pytest --fail-on-skips`."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fail-on-skips",
        action="store_true",
        help="fail if a test is skipped for a reason that `allowed_skips` does not list",
    )
    parser.addini("allowed_skips", "parts of the reasons of acceptable skips", type="linelist")


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
