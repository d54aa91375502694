"""Settings of all tests."""

import os

import pytest
from hypothesis import settings

# New examples are found on developers' machines; the same change has the same result in CI.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """Tests leave the user's cache of compiled programs alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MUSAX_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield
