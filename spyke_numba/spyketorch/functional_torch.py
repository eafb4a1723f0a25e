"""What `functional` computes in torch operations, on any device and for any dtype.

Nothing here asks the device for a number, and a batch takes no more operations than a sample.
"""

from __future__ import annotations

import torch

from spyke_numba.model.kwta import KWTA

Tensor = torch.Tensor

#: The original's order of winners is defined for sums from LEAST to MOST: beyond, products and sums are not exact, or
#: are infinite. Whole numbers are summed as float64, exactly.
LEAST = {torch.float32: 2.0**-149, torch.float64: 2.0**-900}
MOST = {torch.float32: torch.finfo(torch.float32).max, torch.float64: 2.0**900}
_MOST_OF_WHOLE_NUMBERS = 2.0**53


def added_in_order(neurons: int, dtype: torch.dtype) -> int:
    """Return of how many neurons of a sample torch adds up the steps in their order: the others go in four lanes.

    It takes four vectors of 32 bytes at a time, or four numbers where there is not even one vector.
    """
    at_once = 128 // dtype.itemsize
    return neurons - neurons % (at_once if 4 * neurons >= at_once else 4)


# ------------------------------------------------------------------------------------------------------------
# Winners


def winners(potentials: Tensor, spikes: Tensor | None, kwta: int, radius: int, exact: bool) -> Tensor:
    """Return flat indices (B, k) of the winners of potentials (B, T, F, H, W), -1 for none."""
    rows, columns = potentials.shape[-2:]
    keys = _keys(potentials, (potentials if spikes is None else spikes) > 0)
    if not exact:
        # where the original's order is not defined, the exact one holds
        originals, defined = _original_keys(potentials, spikes)
        keys = torch.where(defined.view(-1, 1, 1, 1), originals, _widened(keys))
    keys = keys.flatten(2)
    if radius > 0 and kwta > 1:
        return _choose_apart(keys, kwta, radius, rows, columns)
    return _choose(keys, kwta)


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


def _original_keys(potentials: Tensor, spikes: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return an integer for each neuron (B, F, H, W) in the original's order, and (B,) where that is defined.

    A neuron that cannot win has the least integer of 64 bits.
    """
    whole_numbers = not potentials.is_floating_point()
    dtype = torch.float64 if whole_numbers or potentials.dtype == torch.float64 else torch.float32
    steps = potentials.shape[1]
    x = potentials.flatten(2).to(dtype)
    s = x.sign() if spikes is None else spikes.flatten(2).to(dtype)
    s = s.nan_to_num(0.0, torch.inf, -torch.inf)
    count = (s > 0).sum(1) - (s < 0).sum(1)
    high, low = s.amax(1), s.amin(1)
    step = (steps - count).clamp_(max=steps - 1)
    value = x.gather(1, step.unsqueeze(1)).squeeze(1)
    product = (torch.where(value >= 0, high, low) * value).nan_to_num_(-torch.inf, torch.inf, -torch.inf)
    peak = product.masked_fill_((high == 0) & (low == 0), 0).amax(1)
    v = peak * steps
    top = torch.maximum(high, -low).amax(1).clamp_(min=1)
    most = _MOST_OF_WHOLE_NUMBERS if whole_numbers else MOST[dtype]
    defined = (v >= LEAST[dtype]) & ((v + v) * steps * top <= most)
    v = torch.where(defined, v, 1).unsqueeze(1)
    added = [_fma(s[:, t], v, s[:, t] * value).masked_fill_(s[:, t] == 0, 0) for t in range(steps)]
    in_order = added_in_order(x.shape[2], dtype)
    total = torch.cat(
        [
            _added_up([row[:, :in_order] for row in added], 1),
            _added_up([row[:, in_order:] for row in added], 4),
        ],
        1,
    )
    keys = _widened(_ordered(total, packed=False)).masked_fill_(~((count > 0) & (total > 0)), _out(step))
    return keys.view(len(keys), *potentials.shape[2:]), defined


def _added_up(rows: list[Tensor], lanes: int) -> Tensor:
    """Return the sum of rows in the order in which torch adds up a dimension that is not the last, on x86.

    Sixteen rows after the other are one sum, sixteen such sums one sum, and so on; with four lanes, every fourth row
    goes to the same lane, the last ones to the first, and then lane is added to lane.
    """
    whole = len(rows) // lanes
    total = torch.zeros_like(rows[0])
    for lane in range(lanes):
        sums = [torch.zeros_like(total) for _ in range(4)]
        for done, row in enumerate(rows[lane : lanes * whole : lanes], start=1):
            sums[0] = sums[0] + row
            for level in range(1, 4):
                if done % 16**level:
                    break
                sums[level], sums[level - 1] = sums[level] + sums[level - 1], torch.zeros_like(total)
        part = ((sums[0] + sums[1]) + sums[2]) + sums[3]
        for row in rows[lanes * whole :] if lane == 0 else ():
            part = part + row
        total = part if lane == 0 else total + part
    return total


def _fma(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Return a * b + c, rounded once."""
    if a.dtype == torch.float32:
        # the product of two of 24 bits is exact; float64 must not round to a tie of float32
        return _rounded_to_odd(*_two_sum(a.double() * b.double(), c.double())).float()
    high = a * b
    (a1, a2), (b1, b2) = _halves(a), _halves(b)
    low = a2 * b2 - (((high - a1 * b1) - a2 * b1) - a1 * b2)
    upper, lower = _two_sum(c, low)
    result, rest = _two_sum(high, upper)
    return result + _rounded_to_odd(*_two_sum(lower, rest))


def _two_sum(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rounded sum and its error."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _halves(a: Tensor) -> tuple[Tensor, Tensor]:
    """Return two float64 of at most 26 bits whose sum is a."""
    scaled = a * (2.0**27 + 1)
    high = scaled - (scaled - a)
    return high, a - high


def _rounded_to_odd(total: Tensor, error: Tensor) -> Tensor:
    """Return a float64 sum, moved to its neighbour on the error's side if it is not exact and its last bit is even."""
    bits = total.view(torch.int64)
    away = torch.where((error > 0) == (total > 0), 1, -1)
    return torch.where((error != 0) & (bits & 1 == 0), bits + away, bits).view(torch.float64)


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


def _widened(keys: Tensor) -> Tensor:
    """Return keys of 64 bits."""
    if keys.dtype == torch.int64:
        return keys
    return torch.where(keys == _out(keys), torch.iinfo(torch.int64).min, keys.long())


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


# ------------------------------------------------------------------------------------------------------------
# Inhibition and space


def survivors(potentials: Tensor) -> Tensor:
    """Return which feature survives at each location, (B, F, H, W), for potentials (B, T, F, H, W)."""
    steps, maps = potentials.shape[1:3]
    clean = potentials
    if potentials.is_floating_point():
        clean = potentials.nan_to_num(-torch.inf, torch.inf, -torch.inf)
    elif potentials.dtype == torch.bool:
        clean = potentials.byte()
    peaks = clean.amax(2)
    step = steps - (peaks > 0).sum(1) + (peaks < 0).sum(1)
    step = step.clamp_(0, steps - 1)[:, None, None].expand(-1, 1, maps, -1, -1)
    best = clean.gather(1, step).squeeze(1).argmax(1, keepdim=True)
    survives = torch.zeros(len(clean), maps, *clean.shape[3:], dtype=torch.bool, device=clean.device)
    return survives.scatter_(1, best, peaks[:, -1:] > 0)


def lateral(intensities: Tensor, weights: Tensor) -> Tensor:
    """Return intensities (..., H, W) changed by their weaker neighbours, by weights of an odd shape."""
    rows, columns = weights.shape
    height, width = intensities.shape[-2:]
    sides = (columns // 2, columns // 2, rows // 2, rows // 2)
    padded = torch.nn.functional.pad(intensities, sides)
    # A pass for each weight: all at once would take rows * columns times the memory.
    change = torch.zeros_like(intensities)
    for i in range(rows):
        for j in range(columns):
            weaker = intensities > padded[..., i : i + height, j : j + width]
            change += torch.where(weaker, weights[i, j], 0)
    return intensities * (1 + change)
