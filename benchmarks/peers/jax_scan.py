"""JAX: `lax.scan` over the steps under `jit`.

XLA contracts the product and the sum of a step, so a spike in many thousands may fall differently.  It runs on as
many threads as there are processors, whatever is asked for.
"""

from __future__ import annotations

NAME = "JAX (jitted scan)"
PACKAGE = "jax"
KWTA = True


def build(work):
    """Return the run and its count; see the package."""
    import jax
    import jax.numpy as jnp

    x = jnp.asarray(work.x)
    _, batch, features, size = work.maps
    samples = jnp.arange(batch)[:, None]

    def free(u, current):
        u = u * work.decay + current
        spiked = u >= work.threshold
        return jnp.where(spiked, 0.0, u), spiked

    def competing(state, current):
        u, counters = state
        u = u * work.decay + current
        held = counters > 0
        u = jnp.where(held.reshape(held.shape + (1,) * (u.ndim - 2)), 0.0, u)
        spiked = u >= work.threshold
        score = jnp.where(spiked, u, -jnp.inf).reshape(batch, features, size)
        top, front = jax.lax.top_k(score.max(axis=2), work.k)
        won = top > -jnp.inf
        place = score.argmax(axis=2)[samples, front]
        counters = jnp.maximum(counters - 1, 0)
        counters = counters.at[samples, front].set(jnp.where(won, work.hold, counters[samples, front]))
        winners = jnp.where(won[..., None], jnp.stack((front, place), axis=2), -1)
        return (jnp.where(spiked, 0.0, u), counters), (spiked, winners)

    @jax.jit
    def advance(x):
        u = jnp.zeros_like(x[0])
        if work.k:
            return jax.lax.scan(competing, (u, jnp.zeros((batch, features), jnp.int32)), x)[1]
        return jax.lax.scan(free, u, x)[1], None

    return lambda: jax.block_until_ready(advance(x)), lambda result: int(result[0].sum())
