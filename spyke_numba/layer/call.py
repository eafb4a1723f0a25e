"""A call of a layer, checked: what it comes to is a value, and making it touches no layer."""

from __future__ import annotations

import contextlib
import itertools
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from spyke_numba import backends
from spyke_numba.compile.program import RECORDS
from spyke_numba.layer.spike_forms import FORMS
from spyke_numba.model.checks import check_no_gradient, is_tensor, whole_number
from spyke_numba.model.expressions import listing, suggest
from spyke_numba.model.kwta import KWTA, Scope
from spyke_numba.model.limits import DTYPES, MOST_STEPS

#: How the names of types begin that hold no real numbers.
_NO_NUMBERS = re.compile(r"complex|object|str|StringDType|[<>]U|\|[SV]|[\[{]|datetime|timedelta|q")


@dataclass(frozen=True)
class Call:
    """What a call of `run` or `step` comes to.

    Attributes
    ----------
    shape, batch : tuple of int, int
        Of the layer that it fits.
    outputs : tuple of (str, tuple of int, str)
        Name, shape and dtype of each record.
    records : tuple of str
        Which of `RECORDS` the kernel writes.
    """

    shape: tuple[int, ...]
    batch: int
    outputs: tuple[tuple[str, tuple[int, ...], str], ...]
    scope: Scope | None
    winners: backends.Winners | None
    exact_order: bool
    records: tuple[str, ...]
    steps: int
    constant_input: bool


def checked_call(
    x: Any,
    steps: int | None,
    record: tuple[str, ...],
    inhibition: KWTA | None,
    single: bool,
    *,
    recordable: tuple[str, ...],
    dtype: str,
    known_shape: tuple[int, ...] | None,
    known_batch: int | None,
) -> Call:
    """Check a call of a layer against what it is, as far as that is known, and return what the call comes to.

    Raises
    ------
    TypeError, ValueError
        One sentence for what cannot be run.
    """
    for name in record:
        if not isinstance(name, str):
            raise TypeError(f"record names {name!r}: give names, of {listing(recordable)}")
        if name in FORMS:
            raise ValueError(
                f"record names {name!r}, which only run and stream give: record 'spikes' in a step"
            )
        if name not in recordable:
            raise ValueError(
                f"record names {name!r}{suggest(name, recordable)}: allowed are {listing(recordable)}"
            )
    if "winners" in record and inhibition is None:
        raise ValueError(
            "record names 'winners', but there is no inhibition: give inhibition=KWTA(...) or leave it out"
        )
    check_numbers("the input", x)
    one_step = single or steps is not None
    shape, batch, has_batch = _fit(tuple(x.shape), one_step, known_shape, known_batch)
    T = steps if steps is not None else 1 if single else int(x.shape[0])
    if T > MOST_STEPS:
        given = f"the input has {T} steps" if steps is None else f"steps is {steps}"
        raise ValueError(f"{given}: give at most {MOST_STEPS} at once")
    F, H, W = shape if len(shape) == 3 else (shape[0], 1, 1)
    kinds = {"spikes": "bool", "refractory": "int32", "winners": "int32"}
    winners = None
    if inhibition is not None:
        most = inhibition.most(F, H, W)
        winners = backends.Winners(inhibition.k, most, inhibition.radius, H, W)
    outer = (*(() if single else (T,)), *((batch,) if has_batch else ()))
    outputs = []
    for name in dict.fromkeys(record):
        per_sample = (winners.k, 3) if winners and name == "winners" else shape
        outputs.append((name, (*outer, *per_sample), kinds.get(name, dtype)))
    # spikes are written in any case, unless their numbers are asked for alone: fewer kernels to compile
    wanted = {"spikes", *record} if "pulses" not in record else set(record)
    return Call(
        shape=shape,
        batch=batch,
        outputs=tuple(outputs),
        scope=None if inhibition is None else inhibition.scope,
        winners=winners,
        exact_order=inhibition is None or inhibition.exact_order,
        records=tuple(name for name in RECORDS if name in wanted),
        steps=T,
        constant_input=one_step,
    )


def _fit(
    given: tuple[int, ...], one_step: bool, known_shape: tuple[int, ...] | None, known_batch: int | None
) -> tuple[tuple[int, ...], int, bool]:
    """Return shape and batch for an input's shape, and whether it has the batch axis."""
    per_step = given if one_step else given[1:]
    time = "" if one_step else "T, "
    if known_shape is not None:
        rank = len(known_shape)
        hint = ""
        if per_step[-rank:] == known_shape and len(per_step) in (rank, rank + 1) and (one_step or given):
            has_batch = len(per_step) == rank + 1
            batch = per_step[0] if has_batch else 1
            if batch > 0 and known_batch in (None, batch):
                return known_shape, batch, has_batch
            if has_batch and batch > 0:
                hint = ": reset(batch=...) changes the number of samples"
        wanted = f"({time}{known_batch or 'B'}, {', '.join(map(str, known_shape))})"
        raise ValueError(f"the input has the shape {given}, but the layer takes {wanted}{hint}")
    if len(per_step) not in (1, 2, 3, 4) or (not one_step and not given) or 0 in per_step:
        raise ValueError(
            f"the input has the shape {given}: give ({time}B, F, H, W) or ({time}B, N), "
            "or the same without B for one sample"
        )
    has_batch = len(per_step) in (2, 4)
    batch = per_step[0] if has_batch else 1
    if known_batch not in (None, batch):
        raise ValueError(
            f"the input has {batch} sample(s), but the layer has {known_batch}: give ({time}{known_batch}, ...)"
        )
    return checked_shape(per_step[1:] if has_batch else per_step), batch, has_batch


def given_outputs(out: Mapping[str, Any], call: Call) -> dict[str, Any]:
    """Return the user's memory for all outputs of a call, each checked."""
    recorded = [name for name, _, _ in call.outputs]
    for name in out:
        if name not in recorded:
            raise ValueError(
                f"out names {name!r}{suggest(str(name), recorded)}, which is not recorded: "
                f"it must name {listing(recorded)} alone"
            )
    return {name: _given_output(out, name, shape, dtype) for name, shape, dtype in call.outputs}


def _given_output(out: Mapping[str, Any], name: str, shape: tuple[int, ...], dtype: str) -> Any:
    array: Any = out.get(name)
    if array is None:
        raise ValueError(f"out names {listing(out)}: it must name {name!r}, which is recorded")
    if isinstance(array, np.ndarray):
        array = np.asarray(array)  # a subclass may say another shape than its memory has
    elif not is_tensor(array):
        raise TypeError(f"out[{name!r}] is a {type(array).__name__}: give contiguous {dtype} {shape}")
    kind = str(array.dtype).removeprefix("torch.")
    contiguous = array.is_contiguous() if hasattr(array, "detach") else array.flags.c_contiguous
    if tuple(array.shape) != shape or kind != dtype or not contiguous:
        raise ValueError(
            f"out[{name!r}] is {kind} {tuple(array.shape)}{'' if contiguous else ', not contiguous'}: "
            f"give contiguous {dtype} {shape}"
        )
    return array


def is_array(x: Any) -> bool:
    return (
        hasattr(x, "__array__")
        or hasattr(x, "__cuda_array_interface__")
        or isinstance(x, (list, tuple, int, float))
    )


def as_input(x: Any) -> Any:
    """Return a tensor as it is, and anything else as an array whose shape is that of its memory."""
    if is_tensor(x):
        check_no_gradient("the input", x)
        return x
    if isinstance(x, np.ma.MaskedArray):
        return x  # which is refused
    return as_array(x)


def as_array(x: Any) -> np.ndarray:
    if hasattr(x, "dtype"):
        return np.asarray(x)  # of its own kind, or with its own reason why not
    try:
        return np.asarray(x, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError):  # the last of tensors with a gradient, in a list
        raise TypeError(f"the input is {type(x).__name__}: give an array or a tensor of numbers") from None


def check_apart(arrays: Mapping[str, Any]) -> None:
    """Raise a ValueError if contiguous arrays share memory: kernels write one while they read another."""
    spans = []
    for name, array in arrays.items():
        if hasattr(array, "data_ptr"):
            start = array.data_ptr()
        else:
            interface = getattr(array, "__cuda_array_interface__", None) or array.__array_interface__
            start = interface["data"][0]
        spans.append((start, start + array.nbytes, name))
    spans.sort()
    for (_, end, name), (start, _, other) in itertools.pairwise(spans):
        if start < end:
            raise ValueError(f"{other} shares memory with {name}: give memory of its own for each output")


def check_numbers(what: str, x: Any) -> None:
    kind = str(x.dtype).removeprefix("torch.")
    if _NO_NUMBERS.match(kind):
        raise TypeError(f"{what} holds {kind}: give real numbers or booleans")
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{what} is a masked array: give numbers for what is masked, such as x.filled(0)")


def check_finite(what: str, given: np.ndarray, taken: np.ndarray) -> None:
    """Raise a ValueError unless all numbers are finite in the dtype as which they are taken."""
    finite = np.isfinite(taken)
    if not finite.all():
        number, beyond = given[~finite][0], taken[~finite][0]
        shown = f"{number:g}, which is {beyond:g} in {taken.dtype}" if np.isfinite(number) else f"{number:g}"
        raise ValueError(f"{what} holds {shown}: give finite numbers, or nan='ignore' to the layer")


def record_names(record: Any) -> tuple[str, ...]:
    if isinstance(record, str):
        raise TypeError(f"record is {record!r}: give a tuple of names, such as ({record!r},)")
    if not isinstance(record, Iterable):
        raise TypeError(f"record is {record!r}: give a tuple of names, such as ('spikes', 'u')")
    names = tuple(record)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"record names {name!r}: give a tuple of names, such as ('spikes', 'u')")
    return names


def no_memory(call: Call) -> MemoryError:
    """Return the refusal of a call whose records do not fit into memory."""

    def size(output: tuple[str, tuple[int, ...], str]) -> int:
        return math.prod(output[1]) * np.dtype(output[2]).itemsize

    largest = max(call.outputs, key=size)
    name, shape, _ = largest
    return MemoryError(
        f"the record {name!r} of {shape} takes {size(largest) / 2**30:.3g} GiB, which is more than there is: "
        "record less, states with every=, or block by block with stream"
    )


def checked_dtype(dtype: Any) -> str:
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        with contextlib.suppress(TypeError):
            name = np.dtype(dtype).name
    if name not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}: allowed are {' and '.join(map(repr, DTYPES))}")
    return name


def checked_inhibition(inhibition: Any) -> KWTA | None:
    if inhibition is not None and not isinstance(inhibition, KWTA):
        raise TypeError(f"inhibition is {inhibition!r}: give KWTA(k=...) or None")
    return inhibition


def check_amplitude(amplitude: Any, dtype: str) -> None:
    """Raise a ValueError unless spikes have one amplitude above 0, by which SpykeTorch orders winners."""
    if isinstance(amplitude, np.ndarray) or not np.dtype(dtype).type(amplitude) > 0:
        given = "differs from neuron to neuron" if isinstance(amplitude, np.ndarray) else f"is {amplitude}"
        raise ValueError(
            f"spike_amplitude {given}, but KWTA(exact_order=False) orders winners by one number above 0: "
            "give such a number, or exact_order=True"
        )


def checked_shape(shape: Any) -> tuple[int, ...]:
    sizes = tuple(shape) if isinstance(shape, Iterable) else (shape,)
    if len(sizes) not in (1, 3):
        raise ValueError(f"shape is {sizes}: give (F, H, W), or (N,) for a population")
    return tuple(whole_number("a size in shape", size, 1) for size in sizes)
