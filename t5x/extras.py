"""How to install what an optional feature needs."""


def how_to_install(extra: str) -> str:
    """Return the remedy for an import that fails for want of an extra of pyproject.toml.

    >>> raise ImportError(f"pictures need matplotlib: {how_to_install('plots')}")
    """
    return (
        f"install the extra `{extra}` (pip install '.[{extra}]' in a checkout, or "
        f"'WHEEL_FILE[{extra}]' with the wheel)"
    )
