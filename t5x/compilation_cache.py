"""Compiled programs are kept between runs, in the user's cache directory."""

import os
from pathlib import Path


def default_cache_dir() -> Path:
    """`$MUSAX_CACHE_DIR` or `$XDG_CACHE_HOME/musax` or `~/.cache/musax`."""
    explicit = os.environ.get("MUSAX_CACHE_DIR")
    if explicit:
        return Path(explicit)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "musax"


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
    folder = default_cache_dir() / "jax" if folder is None else Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    return folder
