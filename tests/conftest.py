"""What every test shares: reproducible caches, hypothesis settings and the folder of larger data sets."""

from __future__ import annotations

import gc
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Before JAX and bayesmat are imported, and in the environment so that child processes see it too.
os.environ.setdefault("BAYESMAT_CACHE", str(ROOT / ".cache" / "bayesmat"))
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
os.environ.setdefault("MPLBACKEND", "Agg")

import jax  # noqa: E402
import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

settings.register_profile(
    "bayesmat",
    deadline=None,  # the first example pays for compilation
    derandomize=True,
    max_examples=30,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("bayesmat")


MANY_MAPS = 30_000


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    """Forget compiled programs before there are too many.

    A sampler's is mapped into memory in some 2,000 pieces, and at the 65,530 that Linux allows a process XLA aborts.
    """
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > MANY_MAPS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of larger open data sets, named by `BAYESMAT_DATA`; the test is skipped without it."""
    name = os.environ.get("BAYESMAT_DATA")
    if not name:
        pytest.skip("BAYESMAT_DATA names no folder: this test reads the larger open data sets")
    folder = Path(name)
    if not folder.is_dir():
        pytest.skip(f"BAYESMAT_DATA names {folder}, which is not a folder")
    return folder
