"""Settings of all tests."""

import hashlib
import os
import platform
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent


def _processor() -> str:
    """What compiled programs depend on: the architecture and its instruction sets."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    features = [line for line in lines if line.startswith(("flags", "Features"))][:1]
    return " ".join([platform.machine(), platform.processor(), *features])


def _compilation_cache() -> Path:
    """Folder in the checkout for compiled programs, one per uv.lock and processor."""
    lock = (ROOT / "uv.lock").read_bytes()
    key = hashlib.sha256(lock + _processor().encode()).hexdigest()[:16]
    return ROOT / ".cache" / "jax" / key


# Compiling is most of what tests cost. These variables are read when jax is imported, and
# subprocesses inherit them; the marker `optimized` undoes the first for a test.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_compilation_cache()))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

# New examples are found on developers' machines; the same change has the same result in CI.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

pytest_plugins = ["tests.cpu_budget"]


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """Tests leave the user's cache of compiled programs alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MUSAX_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _xla_optimizations(request):
    """Compiles tests marked `optimized` as users' programs are compiled."""
    if request.node.get_closest_marker("optimized") is None:
        yield
        return
    import jax

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "0")
        before = jax.config.read("jax_disable_most_optimizations")
        jax.config.update("jax_disable_most_optimizations", False)
        jax.clear_caches()
        yield
        jax.config.update("jax_disable_most_optimizations", before)
        jax.clear_caches()
