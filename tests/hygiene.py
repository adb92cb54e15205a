"""A plugin of pytest: the order of the tests by a seed, and leaks that fail the test which made them."""

import gc
import random
import sys
from collections.abc import Iterator
from itertools import groupby

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes is a matter of what else the machine does.
settings.register_profile("unhurried", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--seed`."""
    parser.addoption(
        "--seed", type=int, help="Run the modules, and the tests of each, in an order made of this whole number."
    )


def pytest_configure(config: pytest.Config) -> None:
    """With a seed, pytest-xdist must keep the order: by default it begins with the files of most tests."""
    if config.getoption("seed") is not None and hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say the seed."""
    seed = config.getoption("seed")
    return None if seed is None else f"order: --seed {seed}"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Shuffle modules within their package, packages among each other, and the tests of a module."""
    seed = config.getoption("seed")
    if seed is None:
        return
    order = random.Random(seed)
    modules = [list(tests) for _, tests in groupby(items, lambda item: item.path)]
    packages = [list(some) for _, some in groupby(modules, lambda tests: tests[0].path.parent)]
    order.shuffle(packages)
    for package in packages:
        order.shuffle(package)
        for tests in package:
            order.shuffle(tests)
    items[:] = [item for package in packages for tests in package for item in tests]


@pytest.fixture(autouse=True)
def leaks_are_found() -> Iterator[None]:
    """Collect what the test has left, so that the warning about an open socket fails this test and not a later one.

    It is the first fixture, and so the last to be torn down; then pytest looks for what a collection warned of.
    """
    yield
    for name in ("last_exc", "last_type", "last_value", "last_traceback"):
        sys.__dict__.pop(name, None)  # for a debugger, and it keeps the variables of a test that has failed
    gc.collect()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """What is there now stays: the collection after each test need not look it through."""
    gc.collect()
    gc.freeze()
