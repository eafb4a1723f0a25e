"""What networks do between their spiking layers: winners, inhibition, firing, pooling, on torch tensors.

Potentials and spikes are waves (T, F, H, W): time, feature maps, rows, columns; or (B, T, F, H, W), a wave
for each sample of a batch. In a cumulative wave a neuron that has fired goes on firing until the wave ends.
Results have the device and the dtype of the input, which only the functions whose names end in an
underscore change.
"""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Sequence
from typing import Any

try:
    import torch
except ImportError as error:
    raise ImportError("spyke_numba.functional needs torch: pip install spyke_numba[torch]") from error

from spyke_numba.checks import whole_number
from spyke_numba.inhibition import KWTA

__all__ = [
    "feature_inhibition",
    "feature_inhibition_",
    "fire",
    "fire_",
    "get_k_winners",
    "intensity_lateral_inhibition",
    "local_normalization",
    "pad",
    "pointwise_inhibition",
    "pooling",
    "threshold",
    "threshold_",
]

Tensor = torch.Tensor
Winner = tuple[int, int, int]
Features = int | Sequence[int] | Sequence[Sequence[int]] | Tensor


# ------------------------------------------------------------------------------------------------------------
# Firing


def threshold(potentials: Tensor, threshold: float | Tensor | None = None) -> Tensor:
    """Return the potentials that are strictly above the threshold, and 0 elsewhere.

    Parameters
    ----------
    potentials : Tensor
        (T, F, H, W) or (B, T, F, H, W); with a threshold, of any shape.
    threshold : float or Tensor, optional
        A number, or a tensor that broadcasts to the potentials. Without it, what is positive at the last step
        is kept there, and all earlier steps are 0.

    Raises
    ------
    TypeError, ValueError
        If the potentials are no tensor of an allowed shape, or the threshold does not fit them.

    Examples
    --------
    >>> threshold(torch.tensor([1.0, 2.0, 3.0]), 2.0)
    tensor([0., 0., 3.])
    """
    below = ~_above(potentials, threshold)
    return potentials.masked_fill(below, 0)


def threshold_(potentials: Tensor, threshold: float | Tensor | None = None) -> Tensor:
    """Do what `threshold` does to the potentials themselves, and return them."""
    below = ~_above(potentials, threshold)
    return potentials.masked_fill_(below, 0)


def fire(
    potentials: Tensor, threshold: float | Tensor | None = None, return_thresholded_potentials: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """Return the spikes: the sign of each potential strictly above the threshold, and 0 elsewhere.

    Parameters
    ----------
    potentials : Tensor
        (T, F, H, W) or (B, T, F, H, W); with a threshold, of any shape.
    threshold : float or Tensor, optional
        A number, or a tensor that broadcasts to the potentials. Without it, what is positive at the last step
        fires then, and nothing fires before.
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
    below = ~_above(potentials, threshold)
    thresholded = potentials.masked_fill(below, 0)
    spikes = thresholded.sign()
    return (spikes, thresholded) if return_thresholded_potentials else spikes


def fire_(potentials: Tensor, threshold: float | Tensor | None = None) -> Tensor:
    """Turn the potentials themselves into the spikes that `fire` gives, and return them."""
    return threshold_(potentials, threshold).sign_()


def _above(potentials: Tensor, level: Any) -> Tensor:
    if level is None:
        _require_waves(potentials)
        above = potentials > 0
        above.narrow(-4, 0, max(potentials.shape[-4] - 1, 0)).fill_(False)
        return above
    _require_tensor("the potentials", potentials)
    if isinstance(level, Tensor):
        try:
            fits = torch.broadcast_shapes(level.shape, potentials.shape) == potentials.shape
        except RuntimeError:
            fits = False
        if not fits:
            raise ValueError(
                f"the threshold has the shape {tuple(level.shape)}; give one that broadcasts to the"
                f" potentials' {tuple(potentials.shape)}"
            )
        level = level.to(potentials.device)
    elif not isinstance(level, numbers.Real):
        raise TypeError(f"the threshold is {level!r}; give a number, a tensor or None")
    elif math.isnan(level):
        raise ValueError("the threshold is NaN; give a number, a tensor or None")
    return potentials > level


# ------------------------------------------------------------------------------------------------------------
# Winners and inhibition


@torch.no_grad()
def get_k_winners(
    potentials: Tensor, kwta: int = 1, inhibition_radius: int = 0, spikes: Tensor | None = None
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
        (T, F, H, W) or (B, T, F, H, W). NaN ranks below every number.
    kwta : int
        Winners per sample, at least 0.
    inhibition_radius : int
        Rows and columns around a winner, at least 0.
    spikes : Tensor, optional
        Of the shape of the potentials: what is positive is a spike. Without it, the sign of the potentials.

    Returns
    -------
    list
        (feature, row, column) of each winner in the order of choice; for a batch a list of them per sample.

    Raises
    ------
    TypeError, ValueError
        If the potentials or spikes are no tensors of an allowed shape, or a number is negative or not whole.

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
    if spikes is None:
        spikes = potentials
    else:
        _require_tensor("the spikes", spikes)
        if spikes.shape != potentials.shape:
            raise ValueError(
                f"the spikes have the shape {tuple(spikes.shape)}; give that of the potentials,"
                f" {tuple(potentials.shape)}"
            )
        spikes = spikes.to(potentials.device)
    single = potentials.ndim == 4
    if single:
        potentials, spikes = potentials.unsqueeze(0), spikes.unsqueeze(0)
    batch, _, maps, rows, columns = potentials.shape
    kwta = min(kwta, maps)
    if potentials.numel() and kwta:
        keys = _keys(potentials, spikes > 0).flatten(2)
        apart = radius > 0 and kwta > 1
        chosen = _choose_apart(keys, kwta, radius, rows, columns) if apart else _choose(keys, kwta)
        flat = chosen.tolist()
    else:
        flat = [[] for _ in range(batch)]
    winners = [[_position(index, rows, columns) for index in sample if index >= 0] for sample in flat]
    return winners[0] if single else winners


def pointwise_inhibition(potentials: Tensor) -> Tensor:
    """Return the potentials with one surviving feature at each location, and 0 in all others.

    The feature that fires earliest at the location survives, among equals the one with the largest potential
    at its first spike, among equals the lowest. A location where nothing fires at the last step is 0 in all
    features.

    Parameters
    ----------
    potentials : Tensor
        Thresholded potentials (T, F, H, W) or (B, T, F, H, W): what is positive fires.

    Raises
    ------
    TypeError, ValueError
        If the potentials are no tensor of an allowed shape.
    """
    _require_waves(potentials)
    if not potentials.numel():
        return potentials.clone()
    with torch.no_grad():
        waves = potentials.unsqueeze(0) if potentials.ndim == 4 else potentials
        fired = waves > 0
        keys = _keys(waves, fired)
        survives = torch.zeros_like(keys, dtype=torch.bool)
        survives.scatter_(1, keys.argmax(1, keepdim=True), fired[:, -1].any(1, keepdim=True))
        silenced = ~survives.unsqueeze(1).reshape(*potentials.shape[:-4], 1, *potentials.shape[-3:])
    return potentials.masked_fill(silenced, 0)


def feature_inhibition(potentials: Tensor, features: Features) -> Tensor:
    """Return the potentials with the given feature maps set to 0.

    Parameters
    ----------
    potentials : Tensor
        (T, F, H, W) or (B, T, F, H, W).
    features : int, sequence of int or Tensor
        Indices of the maps, the same for every sample; or, for a batch, a sequence for each sample.

    Raises
    ------
    TypeError, ValueError
        If the potentials are no tensor of an allowed shape, or a feature is no index of a map.

    Examples
    --------
    >>> feature_inhibition(torch.ones(1, 3, 1, 1), [0, 2]).flatten()
    tensor([0., 1., 0.])
    """
    inhibited = _inhibited(potentials, features)
    return potentials.masked_fill(inhibited, 0)


def feature_inhibition_(potentials: Tensor, features: Features) -> Tensor:
    """Do what `feature_inhibition` does to the potentials themselves, and return them."""
    inhibited = _inhibited(potentials, features)
    return potentials.masked_fill_(inhibited, 0)


def _keys(potentials: Tensor, fired: Tensor) -> Tensor:
    """Return an integer for each neuron (B, F, H, W): greater if it fires earlier, then by its potential.

    Equal integers are equal in both. A neuron that never fires has the least integer of the type.
    """
    steps = potentials.shape[1]
    if steps == 1:
        keys = _ordered(potentials[:, 0], packed=False)
        return keys.masked_fill_(~fired[:, 0], _out(keys))
    # A byte where it suffices: this is the one pass over all steps.
    count = torch.uint8 if steps < 256 else torch.int32
    steps_left = torch.arange(steps, 0, -1, dtype=count, device=fired.device).view(-1, 1, 1, 1)
    urgency = (fired * steps_left).amax(1).long()
    first = (steps - urgency).clamp_(max=steps - 1)
    potential = potentials.gather(1, first.unsqueeze(1)).squeeze(1)
    keys = (urgency << 32).add_(_ordered(potential, packed=True))
    return keys.masked_fill_(urgency == 0, _out(keys))


def _ordered(potential: Tensor, packed: bool) -> Tensor:
    """Return new integers in the order of the potentials, above the least of their type.

    `packed` keeps them within 32 bits, so that something else can stand above them in 64.

    The bits of a floating-point number, taken as an integer, are in its order, but reversed where negative.
    """
    wide = potential.element_size() == 8
    if not potential.is_floating_point():
        return _ranks(potential) if wide else potential.long()
    bits, sign = (torch.int64, 63) if wide else (torch.int32, 31)
    # NaN has no order, and -0.0 must tie with 0.0.
    clean = (potential if wide else potential.float()).nan_to_num(-torch.inf, torch.inf, -torch.inf).add_(0.0)
    integer = clean.view(bits)
    integer ^= (integer >> sign).bitwise_and_(2**sign - 1)
    return _ranks(integer) if wide and packed else integer


def _out(keys: Tensor) -> int:
    """Return the key of a neuron that cannot win."""
    return torch.iinfo(keys.dtype).min


def _ranks(values: Tensor) -> Tensor:
    """Return the rank of each value (B, ...) in its sample; equal values have the same rank."""
    ascending, order = values.flatten(1).sort(-1)
    ranks = torch.zeros_like(order)
    ranks.scatter_(1, order[:, 1:], (ascending[:, 1:] != ascending[:, :-1]).cumsum(1))
    return ranks.view(values.shape)


def _choose(keys: Tensor, kwta: int) -> Tensor:
    """Return flat indices (B, k) of the winners of keys (B, F, H*W), -1 for none: the best of each map."""
    best, location = keys.max(-1)
    ordered, maps = best.sort(stable=True, dim=-1, descending=True)
    ordered, maps = ordered[:, :kwta], maps[:, :kwta]
    return (maps * keys.shape[-1] + location.gather(1, maps)).masked_fill_(ordered == _out(keys), -1)


def _choose_apart(keys: Tensor, kwta: int, radius: int, rows: int, columns: int) -> Tensor:
    """Return what `_choose` does, with `radius` rows and columns around a winner closed to the next ones."""
    row = torch.arange(rows, device=keys.device).view(-1, 1)
    column = torch.arange(columns, device=keys.device)
    samples = torch.arange(len(keys), device=keys.device)
    chosen = []
    for _ in range(KWTA(kwta, radius=radius).most(keys.shape[1], rows, columns)):
        winner = _choose(keys, 1)
        chosen.append(winner)
        index = winner.clamp(min=0).view(-1, 1, 1)
        location = index % (rows * columns)
        near = ((location // columns - row).abs() <= radius) & ((location % columns - column).abs() <= radius)
        keys.masked_fill_(near.view(-1, 1, rows * columns), _out(keys))
        keys[samples, index.flatten() // (rows * columns)] = _out(keys)
    return torch.cat([*chosen, chosen[0].new_full((len(keys), kwta - len(chosen)), -1)], 1)


def _position(index: int, rows: int, columns: int) -> Winner:
    feature, location = divmod(index, rows * columns)
    return (feature, *divmod(location, columns))


def _inhibited(potentials: Tensor, features: Any) -> Tensor:
    """Return a mask of the given maps that broadcasts to the potentials."""
    _require_waves(potentials)
    maps = potentials.shape[-3]
    listed = features.tolist() if hasattr(features, "tolist") else features
    if not isinstance(listed, Sequence):
        listed = [listed]
    per_sample = any(isinstance(item, Sequence) and not isinstance(item, str) for item in listed)
    if per_sample and (potentials.ndim != 5 or len(listed) != len(potentials)):
        samples = f"{len(potentials)} samples" if potentials.ndim == 5 else "no batch"
        raise ValueError(
            f"there are {len(listed)} lists of features, but {samples}; give one list of indices, or one for"
            " each sample"
        )
    mask = torch.zeros(len(listed) if per_sample else 1, maps, dtype=torch.bool)
    for sample, indices in enumerate(listed if per_sample else [listed]):
        for item in indices if isinstance(indices, Sequence) else [indices]:
            try:
                index = operator.index(item)
            except TypeError:
                raise TypeError(f"{item!r} is no feature; give whole numbers from 0 to {maps - 1}") from None
            if not -maps <= index < maps:
                raise ValueError(f"there is no feature {index}; give whole numbers from 0 to {maps - 1}")
            mask[sample, index] = True
    mask = mask.to(potentials.device).view(-1, 1, maps, 1, 1)
    return mask if potentials.ndim == 5 else mask[0]


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
    for axis, (before, after) in enumerate(zip(widths[::2], widths[1::2], strict=True), start=1):
        cut, size = -min(before, 0) - min(after, 0), input.shape[-axis]
        if cut > size:
            raise ValueError(f"pad cuts {cut} off an axis of {size}; give at most its length")
    return torch.nn.functional.pad(input, widths, value=value)


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
    if input.is_floating_point():
        pooled = torch.nn.functional.max_pool2d(_as_images(input), kernel, step, border)
        return pooled.view(*input.shape[:-2], *pooled.shape[-2:])
    if any(border):
        lowest = False if input.dtype == torch.bool else torch.iinfo(input.dtype).min
        rows, columns = border
        input = torch.nn.functional.pad(input, (columns, columns, rows, rows), value=lowest)
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
    # In half precision eps would be 0.
    exact = input.to(torch.promote_types(input.dtype, torch.float32))
    mean = torch.nn.functional.avg_pool2d(
        _as_images(exact), 2 * radius + 1, stride=1, padding=radius, count_include_pad=True
    )
    return (exact / (mean.view(input.shape) + eps)).to(input.dtype)


def intensity_lateral_inhibition(intensities: Tensor, kernel: Tensor | Sequence[Sequence[float]]) -> Tensor:
    """Return intensities x changed by their weaker neighbours: x * (1 + sum of kernel * [x > neighbour]).

    The sum runs over the window of the kernel's size around x, in the same map; outside the map it holds
    zeros.

    Parameters
    ----------
    intensities : Tensor
        (1, F, H, W) or any (..., H, W), floating point.
    kernel : Tensor or sequence of sequences of float
        Weights, an odd number of rows and columns: `kernel[i, j]` belongs to the neighbour i - rows // 2 rows
        down and j - columns // 2 columns to the right. Negative weights inhibit. The centre has no effect.

    Raises
    ------
    TypeError, ValueError
        If the intensities are no floating-point tensor, or the kernel has an even number of rows or columns.
    """
    _require_maps(intensities, floating=True, name="the intensities")
    try:
        weights = torch.as_tensor(kernel, dtype=intensities.dtype, device=intensities.device)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"the kernel is {kernel!r}; give numbers in rows and columns") from None
    if weights.ndim != 2 or not (weights.shape[0] % 2 and weights.shape[1] % 2):
        raise ValueError(
            f"the kernel has the shape {tuple(weights.shape)}; give an odd number of rows and of columns"
        )
    rows, columns = weights.shape
    height, width = intensities.shape[-2:]
    sides = (columns // 2, columns // 2, rows // 2, rows // 2)
    padded = torch.nn.functional.pad(intensities, sides)
    # A pass for each weight: all at once would take rows * columns times the memory.
    factor = torch.ones_like(intensities)
    for i in range(rows):
        for j in range(columns):
            factor += weights[i, j] * (intensities > padded[..., i : i + height, j : j + width])
    return intensities * factor


# ------------------------------------------------------------------------------------------------------------
# Checks and shapes


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
