"""Settings of all tests."""

import pytest


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """Tests leave the user's cache of compiled programs alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MUSAX_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield
