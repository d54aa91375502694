"""Peak arithmetic rates, for the model FLOPs utilisation (MFU)."""

import jax

# Dense bfloat16 FLOP/s of one device, from the makers' data sheets.
_PEAK_FLOPS = {
    "TPU v3": 61.5e12,  # per core
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5p": 459e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "A100": 312e12,
    "H100": 989e12,
    "H200": 989e12,
    "L4": 121e12,
    "V100": 125e12,
    "T4": 65e12,
}


def peak_flops() -> float | None:
    """Peak FLOP/s of all devices together, or None where it is not known (as for CPUs)."""
    kind = jax.devices()[0].device_kind
    matching = [name for name in _PEAK_FLOPS if name in kind]
    if not matching:
        return None
    return _PEAK_FLOPS[max(matching, key=len)] * jax.device_count()
