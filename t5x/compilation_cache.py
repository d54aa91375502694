"""Compiled programs are kept between runs, in the user's cache directory."""

import os
import tempfile
from pathlib import Path


def default_cache_dir() -> Path | None:
    """`$MUSAX_CACHE_DIR` or `$XDG_CACHE_HOME/musax` or `~/.cache/musax`; None without a home."""
    explicit = os.environ.get("MUSAX_CACHE_DIR")
    if explicit:
        return Path(explicit)
    caches = os.environ.get("XDG_CACHE_HOME")
    if not caches:
        try:
            caches = Path.home() / ".cache"
        except RuntimeError:  # neither $HOME nor an entry in passwd, as in some containers
            return None
    return Path(caches) / "musax"


def enable_compilation_cache(folder: str | Path | None = None) -> Path | None:
    """Make JAX keep what it compiles, for programs that take a second or more.

    A cache that is configured already (`jax_compilation_cache_dir`) is left as it is.

    Args:
      folder: where; the default is `jax` in `default_cache_dir()`.

    Returns:
      The folder in use, or None when it cannot be written; compiling then works as without cache.
    """
    import jax

    configured = jax.config.jax_compilation_cache_dir
    if configured:
        return Path(configured)
    if folder is None:
        base = default_cache_dir()
        if base is None:
            return None
        folder = base / "jax"
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):  # JAX would warn of each program it cannot keep
            pass
    except OSError:
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    return folder
