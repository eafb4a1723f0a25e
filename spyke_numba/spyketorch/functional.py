"""What networks do between their spiking layers: winners, inhibition, firing, pooling, on torch tensors.

Potentials and spikes are waves (T, F, H, W): time, feature maps, rows, columns; or (B, T, F, H, W), a wave
for each sample of a batch. In a cumulative wave a neuron that has fired goes on firing until the wave ends.
Results have the device and the dtype of the input, which only the functions whose names end in an
underscore change.

Tensors of float32 and float64 on the CPU are worked on by compiled loops, all others by torch: the results
are the same. The names torch, nn, fn, np and to_pair are here for programs that import everything.
"""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Sequence
from typing import Any

try:
    import torch
    import torch.nn as nn
    import torch.nn.functional as fn
except ImportError as error:
    raise ImportError("spyke_numba.functional needs torch: pip install spyke_numba[torch]") from error

import numpy as np

from spyke_numba.model.checks import whole_number
from spyke_numba.spyketorch import functional_cpu, functional_torch
from spyke_numba.spyketorch.feature_lists import listed_maps

__all__ = [
    "feature_inhibition",
    "feature_inhibition_",
    "fire",
    "fire_",
    "fn",
    "get_k_winners",
    "intensity_lateral_inhibition",
    "local_normalization",
    "nn",
    "np",
    "pad",
    "pointwise_inhibition",
    "pooling",
    "threshold",
    "threshold_",
    "to_pair",
    "torch",
]

Tensor = torch.Tensor
Winner = tuple[int, int, int]
Features = int | Sequence[Any] | np.ndarray | Tensor


# ------------------------------------------------------------------------------------------------------------
# Firing


def threshold(potentials: Tensor, threshold: float | Tensor | None = None) -> Tensor:
    """Return the potentials that are strictly above the threshold, and 0 elsewhere, detached.

    Parameters
    ----------
    potentials : Tensor
        (T, F, H, W) or (B, T, F, H, W); with a threshold, of any shape.
    threshold : float or Tensor, optional
        A number, or a tensor that broadcasts to the potentials. Without it, the potentials of the last step
        are kept, negative ones too, and all earlier steps are 0.

    Raises
    ------
    TypeError, ValueError
        If the potentials are no tensor of an allowed shape, or the threshold does not fit them.

    Examples
    --------
    >>> threshold(torch.tensor([1.0, 2.0, 3.0]), 2.0)
    tensor([0., 0., 3.])
    """
    return _fired(potentials, threshold, spikes=False, kept=True)[1]


def threshold_(potentials: Tensor, threshold: float | Tensor | None = None) -> Tensor:
    """Do what `threshold` does to the potentials themselves, and return them."""
    level = _level(potentials, threshold)
    if _compiled_in_place(potentials, level):
        functional_cpu.fire(potentials, level, None, potentials)
        torch.autograd.graph.increment_version(potentials)
        return potentials
    return potentials.masked_fill_(_silent(potentials, level), 0)


def fire(
    potentials: Tensor, threshold: float | Tensor | None = None, return_thresholded_potentials: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """Return the spikes: the sign of each potential strictly above the threshold, and 0 elsewhere, detached.

    Parameters
    ----------
    potentials : Tensor
        (T, F, H, W) or (B, T, F, H, W); with a threshold, of any shape.
    threshold : float or Tensor, optional
        A number, or a tensor that broadcasts to the potentials. Without it, the spikes of the last step are
        the signs of the potentials then, -1 for negative ones, and nothing fires before.
    return_thresholded_potentials : bool
        Return what the function `threshold` gives, too.

    Returns
    -------
    Tensor or (Tensor, Tensor)
        Spikes, or (spikes, thresholded potentials).

    Raises
    ------
    TypeError, ValueError
        As for the function `threshold`.

    Examples
    --------
    >>> fire(torch.tensor([1.0, 2.0, 3.0]), 2.0)
    tensor([0., 0., 1.])
    """
    spikes, kept = _fired(potentials, threshold, spikes=True, kept=return_thresholded_potentials)
    return (spikes, kept) if return_thresholded_potentials else spikes


def fire_(potentials: Tensor, threshold: float | Tensor | None = None) -> Tensor:
    """Turn the potentials themselves into the spikes that `fire` gives, and return them."""
    level = _level(potentials, threshold)
    if _compiled_in_place(potentials, level):
        functional_cpu.fire(potentials, level, potentials, None)
        torch.autograd.graph.increment_version(potentials)
        return potentials
    return potentials.masked_fill_(_silent(potentials, level), 0).sign_()


def _fired(potentials: Tensor, threshold: Any, spikes: bool, kept: bool) -> tuple[Any, Any]:
    """Return new spikes and thresholded potentials, None for what is not asked for."""
    level = _level(potentials, threshold)
    if potentials.requires_grad:
        potentials = potentials.detach()
    if level is None:
        last = slice(max(potentials.shape[-4] - 1, 0), None)
        at_end = potentials[..., last, :, :, :]
        at_end = at_end.masked_fill(at_end != at_end, 0)
        results = []
        for wanted, values in ((spikes, at_end.sign()), (kept, at_end)):
            result = _zeros(potentials) if wanted else None
            if result is not None:
                result[..., last, :, :, :] = values
            results.append(result)
        return results[0], results[1]
    if isinstance(level, float) and functional_cpu.suits(potentials) and potentials.is_contiguous():
        shape, dtype = potentials.shape, potentials.dtype
        new_spikes, new_kept = (
            functional_cpu.new(shape, dtype) if wanted else None for wanted in (spikes, kept)
        )
        functional_cpu.fire(potentials, level, new_spikes, new_kept)
        return new_spikes, new_kept
    thresholded = potentials.masked_fill(_silent(potentials, level), 0)
    return thresholded.sign() if spikes else None, thresholded if kept else None


def _zeros(potentials: Tensor) -> Tensor:
    if functional_cpu.suits(potentials):
        return functional_cpu.new(potentials.shape, potentials.dtype).zero_()
    return torch.zeros_like(potentials)


def _level(potentials: Any, threshold: Any) -> Any:
    """Return the checked threshold: None, a float, or a tensor on the potentials' device."""
    if threshold is None:
        _require_waves(potentials)
        return None
    _require_tensor("the potentials", potentials)
    if isinstance(threshold, Tensor):
        try:
            fits = torch.broadcast_shapes(threshold.shape, potentials.shape) == potentials.shape
        except RuntimeError:
            fits = False
        if not fits:
            raise ValueError(
                f"the threshold has the shape {tuple(threshold.shape)}; give one that broadcasts to the"
                f" potentials' {tuple(potentials.shape)}"
            )
        return threshold.detach().to(potentials.device)
    if not isinstance(threshold, numbers.Real):
        raise TypeError(f"the threshold is {threshold!r}; give a number, a tensor or None")
    if math.isnan(threshold):
        raise ValueError("the threshold is NaN; give a number, a tensor or None")
    # a whole number too large for a float stays what it is, for whole potentials
    return float(threshold) if potentials.is_floating_point() else threshold


def _compiled_in_place(potentials: Tensor, level: Any) -> bool:
    return (
        isinstance(level, float)
        and functional_cpu.suits(potentials)
        and potentials.is_contiguous()
        and not potentials.requires_grad
        and not potentials.is_inference()
    )


def _silent(potentials: Tensor, level: Any) -> Tensor:
    """Return where the potentials are not above the level, or, without one, where they are not of the last step."""
    if level is None:
        silent = potentials != potentials
        silent.narrow(-4, 0, max(potentials.shape[-4] - 1, 0)).fill_(True)
        return silent
    return ~(potentials > level)


# ------------------------------------------------------------------------------------------------------------
# Winners and inhibition


@torch.no_grad()
def get_k_winners(
    potentials: Tensor,
    kwta: int = 1,
    inhibition_radius: int = 0,
    spikes: Tensor | None = None,
    *,
    exact_order: bool = False,
) -> list[Winner] | list[list[Winner]]:
    """Return up to k winners of cumulative spike waves: who fires first, then with the largest potential.

    The winner is the neuron with the earliest first spike, among equals the one with the largest potential
    at its first spike, among equals the one with the lowest flat (feature, row, column) index. Its feature
    map is then out of the competition, and with a radius every neuron of all maps within that many rows and
    columns (a square, clipped at the border), too; and so on up to k. Where nothing is left that fires,
    there are fewer winners.

    Parameters
    ----------
    potentials : Tensor
        (T, F, H, W) or (B, T, F, H, W).
    kwta : int
        Winners per sample, at least 0.
    inhibition_radius : int
        Rows and columns around a winner, at least 0.
    spikes : Tensor, optional
        Of the shape of the potentials: what is positive is a spike. Without it, the sign of the potentials.
    exact_order : bool
        By default the order is SpykeTorch's, which rounds: potentials that differ by less than about
        1e-6 of the largest one times T may tie. With True it is exact; NaN ranks below every number.

    Returns
    -------
    list
        (feature, row, column) of each winner in the order of choice; for a batch a list of them per sample.

    Raises
    ------
    TypeError, ValueError
        If the potentials or spikes are no tensors of an allowed shape, or a number is negative or not whole.

    Notes
    -----
    SpykeTorch's order is that of ``sum over t of s(t) * (v + p)``, where s are the spikes, p is the potential
    at step T less the number of spikes (the first spike of a cumulative wave) and v is T times the largest
    s * p, all rounded to the potentials' dtype (16 bits: to float32; whole numbers: not at all). s * v + s * p
    is rounded once, and the steps are added up as torch does on x86. In a wave that is not cumulative the
    number of spikes counts, not the first one, and negative spikes count as -1. A neuron whose sum is not
    positive does not win. The exact order holds also where that sum says nothing: in samples without any
    positive s * p, and in those with infinite ones.

    Examples
    --------
    >>> potentials = torch.zeros(2, 3, 4, 4)
    >>> potentials[1, 0, 2, 2] = 9.0
    >>> potentials[:, 2, 1, 3] = 5.0
    >>> get_k_winners(potentials, kwta=3)
    [(2, 1, 3), (0, 2, 2)]
    """
    _require_waves(potentials)
    kwta = whole_number("kwta", kwta, 0)
    radius = whole_number("inhibition_radius", inhibition_radius, 0)
    if spikes is not None:
        _require_tensor("the spikes", spikes)
        if spikes.shape != potentials.shape:
            raise ValueError(
                f"the spikes have the shape {tuple(spikes.shape)}; give that of the potentials,"
                f" {tuple(potentials.shape)}"
            )
        spikes = spikes.to(potentials.device)
    single = potentials.ndim == 4
    if single:
        potentials, spikes = potentials.unsqueeze(0), None if spikes is None else spikes.unsqueeze(0)
    batch, _, maps, rows, columns = potentials.shape
    kwta = min(kwta, maps)
    if not potentials.numel() or not kwta:
        flat: list[list[int]] = [[] for _ in range(batch)]
    else:
        flat = _chosen(potentials, spikes, kwta, radius, bool(exact_order))
    winners = [[_position(index, rows, columns) for index in sample if index >= 0] for sample in flat]
    return winners[0] if single else winners


def _chosen(
    potentials: Tensor, spikes: Tensor | None, kwta: int, radius: int, exact_order: bool
) -> list[list[int]]:
    """Return flat indices of the winners of each sample of (B, T, F, H, W), -1 for none."""
    # 16 bits are added up in 32
    wide = (
        potentials.float()
        if potentials.element_size() == 2 and potentials.is_floating_point()
        else potentials
    )
    steps = potentials.shape[1]
    if exact_order or not functional_cpu.suits(wide) or steps > functional_cpu.LONGEST:
        return functional_torch.winners(potentials, spikes, kwta, radius, exact_order).tolist()
    if spikes is None:
        given = torch.sign(wide, out=functional_cpu.new(wide.shape, wide.dtype))
    else:
        given = spikes.to(wide.dtype).contiguous()
    flat = functional_cpu.winners(wide.contiguous(), given, kwta, radius)
    for sample in np.flatnonzero(flat[:, 0] == -2):
        part = slice(sample, sample + 1)
        spiked = None if spikes is None else spikes[part]
        flat[sample] = functional_torch.winners(potentials[part], spiked, kwta, radius, True).numpy()
    return flat.tolist()


def pointwise_inhibition(thresholded_potentials: Tensor) -> Tensor:
    """Return the potentials with one surviving feature at each location, and 0 in all others.

    The feature that fires earliest at the location survives, among equals the one with the largest potential
    at its first spike, among equals the lowest. A location where nothing fires at the last step is 0 in all
    features. Where waves are not cumulative, the step that counts is, as in SpykeTorch, T less the number of
    steps in which anything fires at the location (its largest potential is positive; steps in which all its
    potentials are negative count as -1).

    Parameters
    ----------
    thresholded_potentials : Tensor
        Thresholded potentials (T, F, H, W) or (B, T, F, H, W): what is positive fires.

    Raises
    ------
    TypeError, ValueError
        If the potentials are no tensor of an allowed shape.
    """
    potentials = thresholded_potentials
    _require_waves(potentials)
    if not potentials.numel():
        return potentials.clone()
    if functional_cpu.suits(potentials) and not _needs_gradient(potentials):
        return functional_cpu.pointwise(potentials.detach().contiguous())
    with torch.no_grad():
        survives = functional_torch.survivors(potentials.unsqueeze(0) if potentials.ndim == 4 else potentials)
        silenced = ~survives.view(*potentials.shape[:-4], 1, *potentials.shape[-3:])
    return potentials.masked_fill(silenced, 0)


def feature_inhibition(potentials: Tensor, inhibited_features: Features) -> Tensor:
    """Return the potentials with the given feature maps set to 0, detached.

    Parameters
    ----------
    potentials : Tensor
        (T, F, H, W) or (B, T, F, H, W).
    inhibited_features : int, sequence, array or Tensor
        The maps, the same for every sample: indices, in one dimension or as (n, 1), which ``mask.nonzero()``
        gives; a boolean mask (F,); or winners (f, r, c), whose maps are meant. Or, for a batch, a list or
        tuple of these for each sample.

    Raises
    ------
    TypeError, ValueError
        If the potentials are no tensor of an allowed shape, or a feature is no index of a map.

    Examples
    --------
    >>> feature_inhibition(torch.ones(1, 3, 1, 1), [0, 2]).flatten()
    tensor([0., 1., 0.])
    """
    _require_waves(potentials)
    inhibited = listed_maps(inhibited_features, potentials.shape)
    potentials = potentials.detach()
    if potentials.numel() > _LARGE and functional_cpu.suits(potentials) and potentials.is_contiguous():
        result = functional_cpu.new(potentials.shape, potentials.dtype).copy_(potentials)
    else:
        result = potentials.clone()
    return _silenced(result, inhibited)


def feature_inhibition_(potentials: Tensor, inhibited_features: Features) -> Tensor:
    """Do what `feature_inhibition` does to the potentials themselves, and return them."""
    _require_waves(potentials)
    return _silenced(potentials, listed_maps(inhibited_features, potentials.shape))


def _position(index: int, rows: int, columns: int) -> Winner:
    feature, location = divmod(index, rows * columns)
    return (feature, *divmod(location, columns))


#: So many maps are sooner set to 0 one by one.
_FEW = 8
#: Numbers for which torch asks the system for new memory, page by page.
_LARGE = 1_000_000


def _silenced(potentials: Tensor, inhibited: list[list[int]]) -> Tensor:
    """Set feature maps to 0: of all samples, or of each its own."""
    each = [potentials] if len(inhibited) == 1 else potentials.unbind(0)
    for sample, maps in zip(each, inhibited, strict=True):
        if len(maps) > _FEW:
            sample.index_fill_(-3, torch.tensor(maps, device=potentials.device), 0)
        else:
            for feature in maps:
                sample.select(-3, feature).zero_()
    return potentials


# ------------------------------------------------------------------------------------------------------------
# Space


def pad(input: Tensor, pad: Sequence[int], value: float = 0) -> Tensor:
    """Return the input with a border of `value`.

    Parameters
    ----------
    input : Tensor
        (..., H, W).
    pad : sequence of int
        Columns on the left and on the right, rows at the top and at the bottom; less than 0 cuts off.
    value : float
        What the border holds.

    Raises
    ------
    TypeError, ValueError
        If the input is no tensor, or `pad` does not hold whole numbers in pairs.
    """
    _require_maps(input)
    try:
        widths = [operator.index(width) for width in pad]
    except TypeError:
        raise TypeError(f"pad is {pad!r}; give four whole numbers (left, right, top, bottom)") from None
    if len(widths) % 2 or not 2 <= len(widths) <= 2 * input.ndim:
        raise ValueError(
            f"pad holds {len(widths)} numbers; give four whole numbers (left, right, top, bottom)"
        )
    cuts = enumerate(zip(widths[::2], widths[1::2], strict=True), start=1) if min(widths) < 0 else ()
    for axis, (before, after) in cuts:
        cut, size = -min(before, 0) - min(after, 0), input.shape[-axis]
        if cut > size:
            raise ValueError(f"pad cuts {cut} off an axis of {size}; give at most its length")
    sides = [0, 0, *widths][-4:] if len(widths) == 2 else widths
    zeros = isinstance(value, (int, float)) and value == 0 and math.copysign(1, value) > 0
    if zeros and len(sides) == 4 and min(sides) >= 0 and input.numel() > _LARGE and _compiled_maps(input):
        return functional_cpu.pad(input, *sides)
    return fn.pad(input, widths, value=value)


def pooling(
    input: Tensor,
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] | None = None,
    padding: int | tuple[int, int] = 0,
) -> Tensor:
    """Return the maximum over windows of rows and columns; of cumulative waves, its earliest spike.

    Parameters
    ----------
    input : Tensor
        (..., H, W).
    kernel_size : int or (int, int)
        Rows and columns of the window.
    stride : int or (int, int), optional
        Rows and columns from window to window; without it, `kernel_size`.
    padding : int or (int, int)
        Rows and columns around the input that never are the maximum; at most half the window.

    Returns
    -------
    Tensor
        (..., (H + 2 * padding - kernel_size) // stride + 1, and so for W).

    Raises
    ------
    TypeError, ValueError
        If the input is no tensor, or a number is not whole or out of range.
    """
    _require_maps(input)
    kernel = _pair("kernel_size", kernel_size, 1)
    step = kernel if stride is None else _pair("stride", stride, 1)
    border = _pair("padding", padding, 0)
    for size, window, width in zip(input.shape[-2:], kernel, border, strict=True):
        if 2 * width > window:
            raise ValueError(f"padding is {width}; give at most half of the window's {window}")
        if window > size + 2 * width:
            raise ValueError(
                f"the window of {window} does not fit into {size + 2 * width} pixels; give a smaller one"
            )
    if _compiled_maps(input):
        return functional_cpu.pooling(input.detach(), kernel, step, border)
    if input.is_floating_point():
        pooled = fn.max_pool2d(_as_images(input), kernel, step, border)
        return pooled.view(*input.shape[:-2], *pooled.shape[-2:])
    if any(border):
        lowest = False if input.dtype == torch.bool else torch.iinfo(input.dtype).min
        rows, columns = border
        input = fn.pad(input, (columns, columns, rows, rows), value=lowest)
    return input.unfold(-2, kernel[0], step[0]).unfold(-2, kernel[1], step[1]).amax((-2, -1))


def local_normalization(input: Tensor, normalization_radius: int, eps: float = 1e-12) -> Tensor:
    """Return each value divided by the mean of its map over the square around it.

    The square has 2 * radius + 1 rows and columns; outside the map it holds zeros, which count in the mean.

    Parameters
    ----------
    input : Tensor
        (..., H, W), floating point.
    normalization_radius : int
        At least 0.
    eps : float
        Added to the mean, so that a square of zeros gives 0.

    Raises
    ------
    TypeError, ValueError
        If the input is no floating-point tensor, or the radius is negative or not whole.
    """
    _require_maps(input, floating=True)
    radius = whole_number("normalization_radius", normalization_radius, 0)
    if _compiled_maps(input) and isinstance(eps, (int, float)):
        return functional_cpu.normalization(input.detach(), radius, float(eps))
    # In half precision eps would be 0.
    exact = input.to(torch.promote_types(input.dtype, torch.float32))
    mean = fn.avg_pool2d(_as_images(exact), 2 * radius + 1, stride=1, padding=radius, count_include_pad=True)
    return (exact / (mean.view(input.shape) + eps)).to(input.dtype)


def intensity_lateral_inhibition(
    intencities: Tensor, inhibition_kernel: Tensor | Sequence[Sequence[float]]
) -> Tensor:
    """Return intensities x changed by their weaker neighbours: x * (1 + sum of kernel * [x > neighbour]).

    The sum runs over the window of the kernel's size around x, row by row, in the same map; outside the map
    it holds zeros.

    Parameters
    ----------
    intencities : Tensor
        (1, F, H, W) or any (..., H, W), floating point. (The name is spelt as in SpykeTorch.)
    inhibition_kernel : Tensor or sequence of sequences of float
        Weights (1, 1, k, k), or any odd number of rows and columns: entry (i, j) belongs to the neighbour
        i - rows // 2 rows down and j - columns // 2 columns to the right. Negative weights inhibit. The
        centre has no effect.

    Raises
    ------
    TypeError, ValueError
        If the intensities are no floating-point tensor, or the kernel has an even number of rows or columns.
    """
    _require_maps(intencities, floating=True, name="the intensities")
    try:
        weights = torch.as_tensor(inhibition_kernel, dtype=intencities.dtype, device=intencities.device)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"the kernel is {inhibition_kernel!r}; give numbers in rows and columns") from None
    given = tuple(weights.shape)
    if weights.ndim == 4 and given[:2] == (1, 1):
        weights = weights[0, 0]
    if weights.ndim != 2 or not (weights.shape[0] % 2 and weights.shape[1] % 2):
        raise ValueError(
            f"the kernel has the shape {given}; give (1, 1, rows, columns) or (rows, columns), both odd"
        )
    if _compiled_maps(intencities) and not _needs_gradient(weights):
        return functional_cpu.lateral(intencities.detach(), weights.detach().contiguous())
    return functional_torch.lateral(intencities, weights)


def to_pair(data: Any) -> tuple[Any, Any]:
    """Return the first two of a tuple, or a pair of twice the same.

    Examples
    --------
    >>> to_pair(3), to_pair((1, 2))
    ((3, 3), (1, 2))
    """
    if isinstance(data, tuple):
        return data[0], data[1]
    return data, data


# ------------------------------------------------------------------------------------------------------------
# Checks and shapes


def _needs_gradient(tensor: Tensor) -> bool:
    return tensor.requires_grad and torch.is_grad_enabled()


def _compiled_maps(input: Tensor) -> bool:
    """Return whether compiled loops take these maps (..., H, W)."""
    return (
        functional_cpu.suits(input)
        and input.is_contiguous()
        and input.numel() > 0
        and not _needs_gradient(input)
    )


def _as_images(input: Tensor) -> Tensor:
    """Return the maps (..., H, W) as (N, 1, H, W), also where N is 0."""
    return input.reshape(math.prod(input.shape[:-2]), 1, *input.shape[-2:])


def _require_tensor(name: str, value: Any) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} are of the type {type(value).__name__}; give a torch tensor")


def _require_waves(potentials: Any) -> None:
    _require_tensor("the potentials", potentials)
    if potentials.ndim not in (4, 5):
        raise ValueError(
            f"the potentials have the shape {tuple(potentials.shape)}; give (T, F, H, W) or (B, T, F, H, W)"
        )


def _require_maps(input: Any, floating: bool = False, name: str = "the values") -> None:
    _require_tensor(name, input)
    if input.ndim < 2:
        raise ValueError(f"{name} have the shape {tuple(input.shape)}; give (T, F, H, W) or any (..., H, W)")
    if floating and not input.is_floating_point():
        raise TypeError(f"{name} are of the type {input.dtype}; give a floating-point tensor")


def _pair(name: str, value: Any, least: int) -> tuple[int, int]:
    try:
        rows, columns = value if isinstance(value, Sequence) else (value, value)
    except ValueError:
        raise ValueError(f"{name} is {value!r}; give one whole number, or two for rows and columns") from None
    return whole_number(name, rows, least), whole_number(name, columns, least)
