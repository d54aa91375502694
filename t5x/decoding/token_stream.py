"""Hand tokens to the host while decoding goes on."""

from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.experimental import io_callback

#: Gets tokens int32 [B, num_decodes, n]; a true result ends decoding.
StreamFn = Callable[[np.ndarray], bool | None]


class TokenStream(flax.struct.PyTreeNode):
    """Tokens not handed over yet. R rows are batch times decodes.

    Attributes:
      pending: int32 [R, N], of which the first `count` columns are filled.
      count: int32 scalar, below N.
      stopped: bool scalar: the host asked for the end.
      fn: gets the tokens.
      num_decodes: rows per prompt.
    """

    pending: Array
    count: Array
    stopped: Array
    fn: StreamFn = flax.struct.field(pytree_node=False)
    num_decodes: int = flax.struct.field(pytree_node=False)

    @classmethod
    def create(cls, fn: StreamFn, rows: int, every: int, num_decodes: int) -> "TokenStream":
        """A stream which delivers every `every` steps; raises ValueError unless positive."""
        if every < 1:
            raise ValueError(f"stream_every must be a positive number of steps, got {every}")
        return cls(
            pending=jnp.zeros((rows, every), jnp.int32),
            count=jnp.zeros((), jnp.int32),
            stopped=jnp.zeros((), jnp.bool_),
            fn=fn,
            num_decodes=num_decodes,
        )

    def push(self, tokens: Array, last: Array) -> "TokenStream":
        """Add int32 [R]; deliver when full, and when `last` (bool scalar).

        The result depends on the host's answer, so deliveries keep their order.
        """
        pending = lax.dynamic_update_slice_in_dim(
            self.pending, tokens[:, None].astype(jnp.int32), self.count, axis=1
        )
        count = self.count + 1
        due = last | (count == pending.shape[1])
        stopped = lax.cond(due, self._deliver, lambda *_: self.stopped, pending, count)
        return self.replace(pending=pending, count=jnp.where(due, 0, count), stopped=stopped)

    def _deliver(self, pending: Array, count: Array) -> Array:
        def deliver(pending: np.ndarray, count: np.ndarray) -> np.ndarray:
            tokens = np.asarray(pending)[:, : int(count)]
            answer = self.fn(tokens.reshape(-1, self.num_decodes, tokens.shape[1]))
            return np.asarray(bool(answer))

        return io_callback(deliver, jax.ShapeDtypeStruct((), jnp.bool_), pending, count)
