"""Examples of shards, in a module that processes import in no time."""

from collections.abc import Iterator


def numbers(shard: int, fail_at: int | None = None) -> Iterator[dict]:
    """Yield three examples.

    Raises:
      RuntimeError: the shard is `fail_at`.
    """
    for i in range(3):
        if shard == fail_at:
            raise RuntimeError("broken")
        yield {"x": 10 * shard + i}
