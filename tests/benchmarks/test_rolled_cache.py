"""The reference's way of sampling computes what the network does with as many latents."""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.baselines.rolled_cache import RolledCacheSampler
from tests.perceiver_ar.reference import random_tokens, tiny


def test_logits_are_those_of_the_network_with_as_many_latents_as_are_cached():
    config, network, params = tiny(num_transformers_per_block=1)
    sampler = RolledCacheSampler(config)
    tokens = random_tokens([24, 24])
    step = jax.jit(sampler.step)

    @jax.jit
    def without_cache(length, fill):
        seen = jnp.where(jnp.arange(24) < length, tokens, 0)
        counts = jnp.full(2, fill)
        return network.apply({"params": params}, seen, latent_counts=counts)[:, -1]

    logits, cache = sampler.begin(params, tokens, jnp.int32(5), 1)
    fills = [1]
    for index in range(6, 24):
        np.testing.assert_allclose(logits, without_cache(index, fills[-1]), atol=2e-5)
        logits, cache = step(params, cache, tokens, jnp.int32(index))
        fills.append(int(cache.fill))
    # Full, it begins anew with half.
    assert fills == [*range(1, 9), *range(4, 9), *range(4, 9), 4]
