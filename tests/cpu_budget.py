"""CPU seconds of tests by file and package, and a limit on what a package may cost.

The summary lists the slowest files and every package beside its budget, in which tests marked
`slow` do not count. With $CI set, a package above twice its budget fails the run. A pytest plugin;
times are those of the process and of the subprocesses that it has waited for. On a processor that
is slower than the one the budgets were made on, or shared with other work, they grow in proportion.
"""

import os
import time
from collections import defaultdict

import pytest

#: CPU seconds that the tests of a package may cost with a cold cache of compiled programs.
BUDGETS = defaultdict(lambda: 90.0, t5x=260.0, musax=160.0, interop=30.0)
FAILS_ABOVE = 2.0
#: CPU seconds of `_reference_work` where the budgets were made.
REFERENCE_SECONDS = 0.3
WORK = 3_000_000
SHOWN_FILES = 15
_PROPERTY, _OF_SLOW_TESTS = "cpu_seconds", "cpu_seconds_of_slow_tests"


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Times set-up (fixtures too), call and tear-down of a test."""
    item.stash[_START] = _cpu_seconds()
    return (yield)


_START = pytest.StashKey[float]()
_WORK_BEFORE = pytest.StashKey[float]()
_SLOWNESS = pytest.StashKey[float]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Keeps the time since the last phase in the report, which xdist hands to the main process."""
    report = yield
    now = _cpu_seconds()
    slow = item.get_closest_marker("slow") is not None
    report.user_properties = [(_OF_SLOW_TESTS if slow else _PROPERTY, now - item.stash[_START])]
    item.stash[_START] = now
    return report


def _reference_work() -> float:
    """Return the CPU seconds of a fixed piece of work in the interpreter."""
    start = time.process_time()
    total = 0
    for number in range(WORK):
        total += number * number % 7
    return time.process_time() - start


def _package(path: str) -> str:
    parts = path.split("/")
    return parts[1] if len(parts) > 2 else "tests"


def _costs(terminalreporter, *properties: str) -> dict[str, float]:
    costs: dict[str, float] = defaultdict(float)
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", ()):
                if name in properties:
                    costs[report.nodeid.split("::")[0]] += value
    return costs


def _by_package(costs: dict[str, float]) -> dict[str, float]:
    packages: dict[str, float] = defaultdict(float)
    for path, seconds in costs.items():
        packages[_package(path)] += seconds
    return packages


def _slowness(config) -> float:
    """Return how many times slower than the budgets presume the processor is, at least 1."""
    if config.stash.get(_SLOWNESS, None) is None:
        slowest = max(config.stash.get(_WORK_BEFORE, 0.0), _reference_work())
        config.stash[_SLOWNESS] = max(1.0, slowest / REFERENCE_SECONDS)
    return config.stash[_SLOWNESS]


def pytest_configure(config):
    """Measure the processor before the tests; `_slowness` does so again after them."""
    if not hasattr(config, "workerinput"):
        config.stash[_WORK_BEFORE] = _reference_work()


def pytest_terminal_summary(terminalreporter, exitstatus, config):
    """Prints the slowest files, and packages beside their budgets."""
    costs = _costs(terminalreporter, _PROPERTY, _OF_SLOW_TESTS)
    if len(costs) < 2:
        return
    write = terminalreporter.write_line
    terminalreporter.section("CPU seconds")
    for path, seconds in sorted(costs.items(), key=lambda cost: -cost[1])[:SHOWN_FILES]:
        write(f"{seconds:8.1f}  {path}")
    write(f"{sum(costs.values()):8.1f}  all")
    slowness = _slowness(config)
    counted = _by_package(_costs(terminalreporter, _PROPERTY))
    for package, seconds in sorted(counted.items(), key=lambda cost: -cost[1]):
        budget = slowness * BUDGETS[package]
        over = "  above its budget" if seconds > budget else ""
        write(f"{seconds:8.1f} of {budget:4.0f}  {package}{over}")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session, exitstatus):
    """With $CI set, fails a run in which a package is above twice its budget."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not os.environ.get("CI") or reporter is None or hasattr(session.config, "workerinput"):
        return
    for package, seconds in _by_package(_costs(reporter, _PROPERTY)).items():
        budget = _slowness(session.config) * BUDGETS[package]
        if seconds > FAILS_ABOVE * budget:
            reporter.write_line(
                f"\ntests/{package} cost {seconds:.0f} CPU seconds, more than {FAILS_ABOVE:g} "
                f"times its budget of {budget:.0f}",
                red=True,
            )
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
