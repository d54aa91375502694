"""Gaussian diffusion: schedules of noise, and solvers that turn noise into data.

Any process x_t = alpha(t) x_0 + sigma(t) eps is, in the coordinates y = x_t / alpha(t), the
variance-exploding one, y = x_0 + tau eps, of noise level tau = sigma / alpha (Karras et al. 2022,
section 2). Solvers know only y and tau; a schedule converts. To sample from a variance-preserving
network that predicts eps from x_t and t:

    schedule = Cosine()

    def denoise(y, level, carry):
        alpha, sigma = preserving_scales(level)
        x_t = alpha * y
        return x0_from_eps(x_t, network(x_t, schedule.time(level)), alpha, sigma), carry

    levels = uniform_levels(schedule, num_steps=50)
    x_0, _ = solve(denoise, levels[0] * jax.random.normal(rng, shape), levels, method="dpmpp_2m")
"""

from musax.diffusion.schedules import (
    DDPM,
    Cosine,
    LinearBeta,
    Schedule,
    VarianceExploding,
    add_noise,
    eps_from_v,
    eps_from_x0,
    karras_levels,
    karras_spacing,
    low_discrepancy_uniform,
    preserving_scales,
    uniform_levels,
    v_from_x0,
    x0_from_eps,
    x0_from_v,
)
from musax.diffusion.solvers import METHODS, Churn, Denoise, Project, evaluations, solve

__all__ = [
    "DDPM",
    "METHODS",
    "Churn",
    "Cosine",
    "Denoise",
    "LinearBeta",
    "Project",
    "Schedule",
    "VarianceExploding",
    "add_noise",
    "eps_from_v",
    "eps_from_x0",
    "evaluations",
    "karras_levels",
    "karras_spacing",
    "low_discrepancy_uniform",
    "preserving_scales",
    "solve",
    "uniform_levels",
    "v_from_x0",
    "x0_from_eps",
    "x0_from_v",
]
