"""How a call of a decoder uses the caches of its layers."""

from typing import Any, NamedTuple

from jax import Array


class Caching(NamedTuple):
    """Options of cached decoding, handed down to every layer. Shapes: B batch.

    Attributes:
      decode: take the inputs as the next steps after those in the caches; without caches,
        allocate them.
      max_decode_length: length of the caches.
      prefill_lengths: int32 [B]: start the caches with the first so many inputs of each row.
    """

    decode: bool = False
    max_decode_length: int | None = None
    prefill_lengths: Array | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """As keyword arguments, for attention."""
        return self._asdict()


NO_CACHE = Caching()
