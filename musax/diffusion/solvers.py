"""Solvers from noise to data: y = x_0 + tau eps, by its ODE or with fresh noise.

The probability flow of Karras et al. 2022 is dy / dtau = (y - x_0(y, tau)) / tau, x_0(y, tau) the
mean of the clean data that a network estimates. One `jax.lax.scan` takes all steps, so that a
program has each network once (Heun's method: twice) whatever their number. A step from level tau
to tau' is exact at tau' = 0: it ends at the estimate.

| method | evaluations a step | source |
|---|---|---|
| euler | 1 | DDIM (Song et al. 2021); Karras et al. 2022, algorithm 1 without its correction |
| heun | 2, the one to 0 has 1 | Karras et al. 2022, algorithm 1 |
| dpmpp_2m | 1 | DPM-Solver++(2M), Lu et al. 2022, algorithm 2 |
| ancestral | 1 | DDPM (Ho et al. 2020), with the variance of q(x_s given x_t, x_0) |

State and levels are float32, or float64 if y is.
"""

import dataclasses
import difflib
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike

#: (y [B, ...], level scalar, carry) -> (estimate of the clean data, of the shape of y, new carry).
Denoise = Callable[[Array, Array, Any], tuple[Array, Any]]
#: (y [B, ...], level scalar) -> y, such as one with given parts put back.
Project = Callable[[Array, Array], Array]

METHODS = ("euler", "heun", "dpmpp_2m", "ancestral")
_CHURNED = ("euler", "heun")


@dataclasses.dataclass(frozen=True)
class Churn:
    """Noise added before each step, which then removes it (Karras et al. 2022, algorithm 2).

    Attributes:
      amount: S_churn, over all steps; a step raises its level by a factor of 1 + amount / steps,
        at most sqrt(2).
      low, high: S_tmin and S_tmax, levels from and up to which there is churn.
      noise: S_noise, standard deviation of the noise; slightly over 1 makes up for lost detail.
    """

    amount: float = 0.0
    low: float = 0.0
    high: float = math.inf
    noise: float = 1.0


class _State(NamedTuple):
    y: Array
    carry: Any
    past: Any  # State of a multistep method: (the previous estimate, its level).


class _Step(NamedTuple):
    level: Array
    after: Array
    rng: Array | None


def solve(
    denoise: Denoise,
    y: Array,
    levels: ArrayLike,
    carry: Any = None,
    *,
    method: str = "euler",
    churn: Churn | None = None,
    rng: Array | None = None,
    project: Project | None = None,
) -> tuple[Array, Any]:
    """Integrate y from the first noise level to the last.

    Call it under `jax.jit`, or each call compiles again.

    Args:
      denoise: estimates the clean data; `level` is that of its y, where churn has raised it too.
      y: [B, ...], data with noise of the first level; from nothing, levels[0] times N(0, 1).
      levels: [S + 1], strictly decreasing, only the last may be 0. May be traced.
      carry: anything that `denoise` hands from one evaluation to the next, such as its estimate
        for self-conditioning: a pytree that keeps its shapes and dtypes.
      method: one of `METHODS`.
      churn: fresh noise at each step of "euler" and "heun".
      rng: random key of churn and of "ancestral".
      project: applied to the initial y and to y after each step, with the level of that y.

    Returns:
      (y at the last level, the last carry).

    Raises:
      ValueError: the method is unknown or has no churn; a random key is missing; levels do not
        decrease; or `denoise` returns another shape than that of y.
    """
    _check(method, churn, rng)
    y = jnp.asarray(y)
    y = y.astype(jnp.promote_types(y.dtype, jnp.float32))
    levels = jnp.asarray(_checked_levels(levels), y.dtype)
    num_steps = len(levels) - 1
    project = project or (lambda y, level: y)
    step = functools.partial(_STEPS[method], functools.partial(_evaluate, denoise))

    def body(state: _State, xs: tuple[Array, Array, Array]) -> tuple[_State, None]:
        index, level, after = xs
        at = _Step(level, after, None if rng is None else jax.random.fold_in(rng, index))
        if churn is not None:
            state, at = _churned(churn, num_steps, state, at)
        state = step(state, at)
        return state._replace(y=project(state.y, after)), None

    past = (jnp.zeros_like(y), jnp.full_like(levels[0], jnp.inf)) if method == "dpmpp_2m" else None
    state = _State(project(y, levels[0]), carry, past)
    state, _ = jax.lax.scan(body, state, (jnp.arange(num_steps), levels[:-1], levels[1:]))
    return state.y, state.carry


def evaluations(method: str, steps: int, *, to_zero: bool = True) -> int:
    """Return the network evaluations of `steps` steps, the last of which goes to level 0 or not.

    Raises:
      ValueError: the method is unknown.
    """
    _check_method(method)
    return 2 * steps - to_zero if method == "heun" else steps


# ---------------------------------------------------------------------------------------- steps


def _euler(evaluate: Denoise, state: _State, at: _Step) -> _State:
    x0, carry = evaluate(state.y, at.level, state.carry)
    return state._replace(y=_toward(x0, state.y, at.after / at.level), carry=carry)


def _heun(evaluate: Denoise, state: _State, at: _Step) -> _State:
    x0, carry = evaluate(state.y, at.level, state.carry)
    ahead = _toward(x0, state.y, at.after / at.level)

    def correct(carry: Any) -> tuple[Array, Any]:
        x0_ahead, carry = evaluate(ahead, at.after, carry)
        slope = ((state.y - x0) / at.level + (ahead - x0_ahead) / at.after) / 2
        return state.y + (at.after - at.level) * slope, carry

    # A branch that is not taken costs nothing: at level 0 no network runs.
    y, carry = jax.lax.cond(at.after > 0, correct, lambda carry: (ahead, carry), carry)
    return state._replace(y=y, carry=carry)


def _dpmpp_2m(evaluate: Denoise, state: _State, at: _Step) -> _State:
    x0, carry = evaluate(state.y, at.level, state.carry)
    x0_before, level_before = state.past
    # The line through both estimates over -log(level), at the middle of the step. The weight is 0
    # in the first step, whose level before is infinite, and in the step to 0, which has no middle.
    log_ratio = jnp.log(at.level / jnp.where(at.after > 0, at.after, at.level))
    weight = log_ratio / (2 * jnp.log(level_before / at.level))
    target = x0 + weight * (x0 - x0_before)
    y = _toward(target, state.y, at.after / at.level)
    return _State(y, carry, (x0, at.level))


def _ancestral(evaluate: Denoise, state: _State, at: _Step) -> _State:
    x0, carry = evaluate(state.y, at.level, state.carry)
    ratio = at.after / at.level
    mean = _toward(x0, state.y, ratio**2)
    std = at.after * jnp.sqrt(1 - ratio**2)
    return state._replace(y=mean + std * _normal(at, mean), carry=carry)


_STEPS = {"euler": _euler, "heun": _heun, "dpmpp_2m": _dpmpp_2m, "ancestral": _ancestral}


def _churned(churn: Churn, num_steps: int, state: _State, at: _Step) -> tuple[_State, _Step]:
    """Return the state with noise added, and the step from its level."""
    gamma = jnp.minimum(churn.amount / num_steps, math.sqrt(2) - 1)
    gamma = jnp.where((churn.low <= at.level) & (at.level <= churn.high), gamma, 0)
    gamma = gamma.astype(at.level.dtype)
    std = at.level * jnp.sqrt(gamma * (2 + gamma)) * churn.noise
    raised = at._replace(level=at.level * (1 + gamma))
    return state._replace(y=state.y + std * _normal(at, state.y)), raised


def _toward(x0: Array, y: Array, ratio: Array) -> Array:
    """Interpolate between x0 (ratio 0) and y (1); exactly x0 at 0."""
    return x0 + ratio * (y - x0)


def _normal(at: _Step, like: Array) -> Array:
    assert at.rng is not None
    return jax.random.normal(at.rng, like.shape, like.dtype)


def _evaluate(denoise: Denoise, y: Array, level: Array, carry: Any) -> tuple[Array, Any]:
    x0, carry = denoise(y, level, carry)
    if x0.shape != y.shape:
        raise ValueError(f"denoise returned shape {x0.shape}; expected that of y, {y.shape}")
    return x0.astype(y.dtype), carry


# --------------------------------------------------------------------------------------- checks


def _check_method(method: str) -> None:
    if method not in METHODS:
        close = difflib.get_close_matches(method, METHODS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else "."
        raise ValueError(f"unknown method {method!r}{hint} Known: {', '.join(METHODS)}")


def _check(method: str, churn: Churn | None, rng: Array | None) -> None:
    _check_method(method)
    if churn is not None and method not in _CHURNED:
        raise ValueError(f"method {method!r} has no churn: use {' or '.join(_CHURNED)}")
    if rng is None and (churn is not None or method == "ancestral"):
        needs = "churn" if churn is not None else "method 'ancestral'"
        raise ValueError(f"{needs} draws noise: give rng, a random key")


def _checked_levels(levels: ArrayLike) -> Array | np.ndarray:
    known = None if isinstance(levels, Tracer) else np.asarray(levels)
    found = jnp.asarray(levels) if known is None else known
    if found.ndim != 1 or len(found) < 2:
        raise ValueError(f"levels have shape {found.shape}; expected [steps + 1]")
    if known is not None and not (np.all(known[1:] < known[:-1]) and known[-1] >= 0):
        raise ValueError(f"levels must strictly decrease to 0 or more, got {known}")
    return found
