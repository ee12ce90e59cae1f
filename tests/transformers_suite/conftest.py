"""
Our classes in the tests that every model of transformers passes; `make test-transformers` runs them.

The test modules are written as those of a model of transformers are (`tests/models/videomae` there), and get the tests
from the mixins of the installed version, which `fetch_tests.py` puts into `.venv`. A test that is switched off or
written anew says why, and which model of transformers does the same.
"""

import os

import pytest


os.environ["HF_HUB_OFFLINE"] = "1"


def pytest_addoption(parser: pytest.Parser):
    parser.addoption("--at-least", type=int, default=0, help="fail if fewer tests than these pass")


def pytest_sessionfinish(session: pytest.Session):
    # a mixin that loses its tests, or skips them, would otherwise look as if all was well
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    expected = session.config.getoption("at_least")
    passed = len(reporter.stats.get("passed", [])) if reporter else expected
    if passed < expected:
        reporter.write_line(f"\n{passed} tests pass, but {expected} passed when the Makefile was written", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
