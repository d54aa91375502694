"""cos and ln rounded in float32 as TensorFlow (Eigen) rounds them on a CPU.

The released log-mel models saw spectrograms whose window and mel bands were made by these
kernels. The last bit matters: it shows as 0.5 % in the quiet bands beside a loud partial, where a
float64 window or another library's float32 cosine leaves a different residue.
"""

import numpy as np

_f = np.float32

# π/2 in four parts, each exact when multiplied by a small integer in float32 (Cody and Waite).
_HALF_PI_PARTS = np.array(
    [1.5703125, 4.83989715576171875e-4, -1.62865035235881805e-7, -5.564431554416771e-11], np.float32
)
_COS = np.array(
    [2.4372266125283204e-5, -1.388652017340064e-3, 0.04166661947965622, -0.5, 1.0], np.float32
)
_SIN = np.array([-1.9592341140837028e-4, 8.332687365561685e-3, -0.16666662039822983], np.float32)
_LOG_TOP = np.array([0.18256296349849254, 1.0000000190281063, 1.0000000190281136], np.float32)
_LOG_BOTTOM = np.array(
    [0.049616247954120038, 0.59923249590823520, 1.4999999999999927, 1.0], np.float32
)


def _polynomial(coefficients: np.ndarray, x: np.ndarray) -> np.ndarray:
    value = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        value = value * x + coefficient
    return value


def cos(angle: np.ndarray) -> np.ndarray:
    """Return the cosine of float32 angles between 0 and a few turns, rad."""
    quarter = np.rint(angle * _f(2 / np.pi))
    rest = angle
    for part in _HALF_PI_PARTS:
        rest = rest - quarter * part
    square = rest * rest
    cosine = _polynomial(_COS, square)
    sine = (_polynomial(_SIN, square) * square) * rest + rest
    quadrant = quarter.astype(np.int32)
    value = np.where(quadrant % 2 == 0, cosine, sine)
    return np.where((quadrant + 1) // 2 % 2 == 1, -value, value)


def log(x: np.ndarray) -> np.ndarray:
    """Return the natural logarithm of positive normal float32 numbers."""
    fraction, exponent = np.frexp(x)
    low = fraction < _f(np.sqrt(0.5))
    exponent = (exponent - low).astype(np.float32)
    offset = (fraction - _f(1.0)) + np.where(low, fraction, _f(0.0))
    ratio = offset * _polynomial(_LOG_TOP, offset) / _polynomial(_LOG_BOTTOM, offset)
    return exponent * _f(np.log(2.0)) + ratio
