"""Where compiled programs are kept, and where they are not."""

import os
import tempfile
from pathlib import Path

import jax
import pytest

from t5x import compilation_cache as cache


@pytest.fixture(autouse=True)
def nothing_configured(monkeypatch):
    """Leave JAX without a cache, and restore what it has."""
    before = jax.config.jax_compilation_cache_dir
    for name in ("HOME", "XDG_CACHE_HOME", "MUSAX_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    jax.config.update("jax_compilation_cache_dir", before)


def test_the_users_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.enable_compilation_cache() == tmp_path / ".cache/musax/jax"
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / ".cache/musax/jax")
    monkeypatch.setenv("MUSAX_CACHE_DIR", str(tmp_path / "own"))
    assert cache.default_cache_dir() == tmp_path / "own"


def test_no_home_and_no_passwd_entry(monkeypatch):
    def unknown(uid):
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", unknown)
    with pytest.raises(RuntimeError):
        Path.home()
    assert cache.default_cache_dir() is None
    assert cache.enable_compilation_cache() is None
    assert jax.config.jax_compilation_cache_dir is None


def test_a_folder_of_another_owner_is_not_used(tmp_path, monkeypatch):
    """JAX would warn of each program that it cannot keep."""
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / ".cache/musax/jax"
    folder.mkdir(parents=True)
    folder.chmod(0o555)
    if os.geteuid() == 0:  # whom modes do not stop

        def refused(*args, **options):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(tempfile, "TemporaryFile", refused)
    assert cache.enable_compilation_cache() is None
    assert jax.config.jax_compilation_cache_dir is None
