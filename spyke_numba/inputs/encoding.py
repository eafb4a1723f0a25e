"""From the world to a layer's input: pictures to contrast to spikes, and recordings to currents."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import DTypeLike

from spyke_numba.model.checks import whole_number

__all__ = [
    "difference_of_gaussians",
    "latencies",
    "latency_code",
    "rate_code",
    "resample",
    "spike_wave",
    "spread",
]

Wave = Literal["one-shot", "cumulative"]
Order = Literal["rank", "linear"]
#: A step is an int32.
MOST_STEPS = 2**31 - 1
#: Pixels; a wider surround would be a window of many gigabytes.
WIDEST_SIGMA = 1000.0
TINY = float(np.finfo(np.float64).tiny)


def difference_of_gaussians(
    image: np.ndarray,
    *,
    sigmas: Sequence[tuple[float, float]] = ((1.0, 2.0),),
    threshold: float = 0.0,
) -> np.ndarray:
    r"""Return on- and off-centre contrast, as the cells of the retina see it.

    For each (centre, surround): :math:`G_{centre} * x - G_{surround} * x`, its positive part (a bright spot
    on dark ground) and then its negative part (dark on bright). The maps are scaled together so that the
    strongest contrast is 1; the border is continued by its outermost pixels.

    Parameters
    ----------
    image : ndarray
        (H, W).
    sigmas : sequence of (float, float)
        Standard deviations of centre and surround in pixels, a pair for each scale.
    threshold : float
        Contrast below this fraction of the strongest becomes 0.

    Returns
    -------
    ndarray
        (2 * scales, H, W) float32 in [0, 1]: on, off, on, off, ….

    Raises
    ------
    ValueError
        For an image that is not two-dimensional or not finite, a sigma of 0 or less, or a surround that is
        not wider than its centre or wider than 1000 pixels.

    References
    ----------
    Rodieck 1965, doi:10.1016/0042-6989(65)90033-7.
    """
    image = np.asarray(image, dtype=np.float64)
    if image.ndim != 2 or 0 in image.shape:
        raise ValueError(f"the image has the shape {image.shape}; give one grey image of shape (H, W)")
    if not np.isfinite(image).all():
        raise ValueError("the image holds NaN or infinite pixels; give finite ones")
    if not 0.0 <= threshold < 1.0:
        raise ValueError(f"threshold is {threshold}; give a fraction of the strongest contrast in [0, 1)")
    if not len(sigmas):
        raise ValueError("no scale was given; give at least one pair (centre, surround)")
    maps = []
    for sigma in sigmas:
        if np.shape(sigma) != (2,):
            raise ValueError(
                f"the scales are {sigmas!r}; give pairs (centre, surround) such as ((1.0, 2.0),)"
            )
        centre, surround = sigma
        if not 0.0 < centre < surround:
            raise ValueError(
                f"the scale ({centre}, {surround}) is not allowed; give a centre above 0 and a wider surround"
            )
        if surround > WIDEST_SIGMA:
            raise ValueError(
                f"the surround is {surround}; give a finite one of at most {WIDEST_SIGMA:g} pixels"
            )
        contrast = _blur(image, centre) - _blur(image, surround)
        maps += [np.maximum(contrast, 0.0), np.maximum(-contrast, 0.0)]
    contrast = np.stack(maps)
    strongest = contrast.max()
    # A uniform image leaves rounding errors, which scaling would turn into structure.
    if strongest <= 1e-12 * max(1.0, np.abs(image).max()):
        return np.zeros(contrast.shape, np.float32)
    contrast /= strongest
    contrast[contrast < threshold] = 0.0
    return contrast.astype(np.float32)


def _blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Convolve with a Gaussian cut at 4 sigma, along both axes."""
    radius = math.ceil(4.0 * sigma)
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    taps /= taps.sum()
    for axis in (0, 1):
        padding = [(0, 0), (0, 0)]
        padding[axis] = (radius, radius)
        windows = np.lib.stride_tricks.sliding_window_view(
            np.pad(image, padding, mode="edge"), len(taps), axis=axis
        )
        image = windows @ taps
    return image


def latencies(values: np.ndarray, steps: int, *, order: Order = "rank") -> np.ndarray:
    """Return the step of each value's first spike: the strongest first, zero never.

    Parameters
    ----------
    values : ndarray
        Intensities of any shape, not negative.
    steps : int
        Spikes fall in steps 0 … steps - 1.
    order : {"rank", "linear"}
        ``"rank"``: the values are ranked and the ranks spread evenly over the steps, so that every step has
        about as many spikes (equal values spike together). ``"linear"``: the latency is proportional to
        1 - value / strongest.

    Returns
    -------
    ndarray
        int32 of the shape of `values`; -1 where there is no spike.

    Raises
    ------
    ValueError
        If a value is negative or not finite, or `steps` is below 1, or `order` is unknown.

    References
    ----------
    Thorpe, Delorme & Van Rullen 2001, doi:10.1016/S0893-6080(01)00083-1.

    Examples
    --------
    >>> latencies(np.array([0.0, 0.2, 1.0, 0.7]), steps=3)
    array([-1,  2,  0,  1], dtype=int32)
    """
    values = _intensities(values)
    _at_least_one_step(steps)
    result = np.full(values.shape, -1, np.int32)
    positive = values > 0
    strengths = values[positive]
    if not strengths.size:
        return result
    if order == "rank":
        ascending = np.sort(strengths)
        stronger = strengths.size - np.searchsorted(ascending, strengths, side="right")
        result[positive] = stronger * steps // strengths.size
    elif order == "linear":
        result[positive] = np.minimum((1.0 - strengths / strengths.max()) * steps, steps - 1)
    else:
        raise ValueError(f"order is {order!r}; allowed are 'rank' and 'linear'")
    return result


def latency_code(
    values: np.ndarray,
    steps: int,
    *,
    wave: Wave = "one-shot",
    order: Order = "rank",
    dtype: DTypeLike = bool,
) -> np.ndarray:
    """Return a wave of spikes in which the strongest value spikes first (see `latencies`).

    Parameters
    ----------
    values : ndarray
        Intensities, (F, H, W) or any shape.
    steps : int
        Length of the wave.
    wave : {"one-shot", "cumulative"}
        ``"one-shot"``: 1 in the step of the spike alone. ``"cumulative"``: 1 from that step on, the form
        that networks of non-leaky integrators take: the potential at a step is then a single weighted sum.

    Returns
    -------
    ndarray
        (steps, \\*values.shape), zeros and ones.
    """
    return spike_wave(latencies(values, steps, order=order), range(steps), wave=wave, dtype=dtype)


def spike_wave(
    first: np.ndarray, steps: range, *, wave: Wave = "one-shot", dtype: DTypeLike = bool
) -> np.ndarray:
    """Return the part of a wave of spikes that lies in `steps`, given each neuron's `latencies`.

    Parameters
    ----------
    first : ndarray
        Step of each spike, -1 where there is none.
    steps : range
        The steps wanted, so that a long wave is made block by block.
    wave, dtype
        As for `latency_code`.

    Returns
    -------
    ndarray
        (len(steps), \\*first.shape), zeros and ones.
    """
    step = np.array(steps, dtype=np.int32).reshape((-1,) + (1,) * first.ndim)
    if wave == "one-shot":
        return (first == step).astype(dtype, copy=False)
    if wave == "cumulative":
        return ((first <= step) & (first >= 0)).astype(dtype, copy=False)
    raise ValueError(f"wave is {wave!r}; allowed are 'one-shot' and 'cumulative'")


def rate_code(
    values: np.ndarray,
    steps: int,
    *,
    rate: float = 100.0,
    ts: float = 0.001,
    seed: int | np.random.Generator = 0,
    dtype: DTypeLike = bool,
) -> np.ndarray:
    """Return independent random spike trains whose rates are proportional to the values.

    Parameters
    ----------
    values : ndarray
        Intensities, (F, H, W) or any shape, not negative.
    steps : int
        Length of the trains.
    rate : float
        Rate of the strongest value (Hz): it spikes in a step with the probability rate * ts.
    ts : float
        Time step (s).
    seed : int or Generator
        A generator goes on where it was, so that a long train is made block by block.

    Returns
    -------
    ndarray
        (steps, \\*values.shape), zeros and ones.

    Raises
    ------
    ValueError
        If a value is negative or not finite, or rate * ts is not in [0, 1], or `ts` not above 0.
    """
    values = _intensities(values)
    _at_least_one_step(steps)
    _positive("ts", ts)
    if not rate >= 0.0:
        raise ValueError(f"rate is {rate}; give spikes a second, 0 or more")
    if not rate * ts <= 1.0:
        raise ValueError(
            f"rate * ts is {rate * ts:g}, but a probability is at most 1; give at most {1 / ts:g} Hz"
        )
    strongest = values.max(initial=0.0)
    if 0.0 < strongest < TINY:  # the factor of a subnormal number is infinite
        values, strongest = values / strongest, 1.0
    chance = (values * (rate * ts / strongest) if strongest > 0 else values).astype(np.float32)
    rng = np.random.default_rng(seed)
    wave = np.empty((steps, *values.shape), dtype)
    for row in wave:
        row[...] = rng.random(values.shape, dtype=np.float32) < chance
    return wave


def _intensities(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if not (np.isfinite(values) & (values >= 0)).all():
        raise ValueError("the intensities hold negative or infinite values or NaN; give numbers of 0 or more")
    return values


def _at_least_one_step(steps: int) -> None:
    if whole_number("steps", steps, 1) > MOST_STEPS:
        raise ValueError(f"steps is {steps}; give at most {MOST_STEPS}")


def _positive(name: str, value: float) -> None:
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name} is {value:g}; give a finite number above 0")


def resample(
    recording: np.ndarray, *, sample_rate: float, ts: float, steps: int, first: int = 0
) -> np.ndarray:
    """Return a recording at the steps' times, interpolated in straight lines; its last value is held.

    Parameters
    ----------
    recording : ndarray
        (samples, channels); sample i was taken at i / sample_rate.
    sample_rate : float
        Samples a second (Hz).
    ts : float
        Time step (s).
    steps : int
        Steps to return, from step `first` on.

    Returns
    -------
    ndarray
        (steps, channels) float64.

    Raises
    ------
    ValueError
        If the recording has not two axes or no samples, `sample_rate` or `ts` is not finite and above 0, or `first`
        is negative.
    """
    recording = np.asarray(recording, dtype=np.float64)
    if recording.ndim != 2:
        raise ValueError(f"the recording has the shape {recording.shape}; give (samples, channels)")
    if not len(recording):
        raise ValueError("the recording has no samples; give at least one")
    _positive("sample_rate", sample_rate)
    _positive("ts", ts)
    if first < 0:
        raise ValueError(f"first is {first}; give a step of 0 or more")
    at = np.minimum(np.arange(first, first + steps) * (ts * sample_rate), len(recording) - 1)
    before = at.astype(np.int64)
    after = np.minimum(before + 1, len(recording) - 1)
    share = (at - before)[:, None]
    return recording[before] * (1.0 - share) + recording[after] * share


def spread(recording: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return a recording spread over a layer: a group of neighbours for each channel.

    Of N neurons in flat order, neuron i is driven by channel ``i * C // N``: C groups of about equal size.

    Parameters
    ----------
    recording : ndarray
        (T, C), with no more channels than the layer has neurons.
    shape : sequence of int
        The layer's shape.

    Returns
    -------
    ndarray
        (T, \\*shape).

    Raises
    ------
    ValueError
        If there are more channels than neurons.

    Examples
    --------
    >>> spread(np.array([[1.0, 2.0]]), (5,))
    array([[1., 1., 1., 2., 2.]])
    """
    recording = np.asarray(recording)
    size, channels = math.prod(shape), recording.shape[1]
    if channels > size:
        raise ValueError(
            f"{channels} channels cannot drive {size} neuron(s); give a layer of at least {channels}"
        )
    channel = np.arange(size) * channels // size
    return recording[:, channel].reshape(len(recording), *shape)
