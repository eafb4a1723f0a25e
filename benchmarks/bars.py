"""What the measurements must reach, as data, and how a row of results is held against it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

#: Shapes (batch, F, H, W) at which k-winners-take-all is measured.
KWTA_SHAPES = ((1, 30, 28, 28), (1, 100, 160, 160), (32, 30, 28, 28))
#: Waves (T, F, H, W) on which the functions between the layers are measured.
WAVES = ((15, 30, 28, 28), (15, 250, 14, 14), (15, 30, 160, 250))
#: What is measured on a GPU: neurons without inhibition, samples with it, and their winners.
GPU_NEURONS, GPU_BATCH, GPU_WINNERS = 10_000_000, 256, 5
#: Which part of the bandwidth of the device's own copy these models must reach.
GPU_MODELS = {"LIF": 0.7, "Izhikevich": 0.7, "AdEx": 0.6}
PEER_SIZES = (10_000, 100_000, 1_000_000)
#: How many times the time of ours a peer's must be.
PEER_FACTORS = {
    "Brian2 (cython)": 5.0,
    "snnTorch": 10.0,
    "SpikingJelly": 10.0,
    "Norse": 10.0,
    "JAX (jitted scan)": 2.0,
    "numpy": 1.0,
    "eager torch": 1.0,
    "torch.compile": 1.0,
}


@dataclass(frozen=True)
class Bar:
    """A bound on a column of all rows of a benchmark that match; `at_least` turns it from a most into a least."""

    benchmark: str
    what: str
    column: str
    limit: float
    where: Mapping[str, Any] = field(default_factory=dict)
    unit: str = ""
    at_least: bool = False

    def matches(self, row: Mapping[str, Any]) -> bool:
        """Return whether the row is one that the bar is about; a tuple allows any of its values."""
        if row.get(self.column) is None:
            return False
        return all(row.get(name) in (v if isinstance(v, tuple) else (v,)) for name, v in self.where.items())

    def measured(self, rows: Iterable[Mapping[str, Any]]) -> float | None:
        """Return the worst of the matching rows, or None where nothing was measured."""
        found = [float(row[self.column]) for row in rows if self.matches(row)]
        return (min if self.at_least else max)(found, default=None)

    def met(self, measured: float | None) -> bool:
        """Return whether that is good enough; what was not measured is not."""
        return measured is not None and (measured >= self.limit if self.at_least else measured <= self.limit)


def _over_floor(model: str, limit: float) -> list[Bar]:
    where = {"model": model, "backend": "cpu", "batch": 1, "steps": 200, "k": 0, "most_threads": True}
    where["constant"] = False
    return [
        Bar(
            "scaling",
            f"{model}, N = {n:,}: over the floor{', into memory that exists' if reuse else ''}",
            "over_floor",
            limit,
            {**where, "neurons": n, "reuse": reuse},
        )
        for n in (100_000, 1_000_000)
        for reuse in (False, True)
    ]


def _in_cache() -> list[Bar]:
    where = {
        "model": "LIF",
        "backend": "cpu",
        "neurons": 10_000,
        "batch": 1,
        "steps": 200,
        "threads": 1,
        "k": 0,
    }
    return [
        Bar(
            "scaling",
            f"LIF, N = 10,000, one thread, {what}: over the floor in the cache",
            "over_cache_floor",
            2.5,
            {**where, "constant": constant},
        )
        for constant, what in ((False, "8 MB of input"), (True, "input in the cache"))
    ]


def _peer(name: str, factor: float) -> list[Bar]:
    where = {"peer": name}
    bars = [
        Bar(
            "peers",
            f"{name}, LIF, N = {n:,}: over ours",
            "over_ours",
            factor,
            {**where, "shape": [n]},
            at_least=True,
        )
        for n in PEER_SIZES
    ]
    for batch, *shape in KWTA_SHAPES:
        text = "×".join(map(str, (batch, *shape)))
        at = {**where, "batch": batch, "shape": shape}
        bars.append(Bar("peers", f"{name}, k-WTA {text}: over ours", "over_ours", factor, at, at_least=True))
    return bars


def _dropin(batch: int, *shape: int, limit: float) -> list[Bar]:
    text = "×".join(map(str, (batch, *shape)))
    at = {"shape": [batch, *shape]}
    bars = [
        Bar(
            "dropin",
            f"drop-in {text}, a call: eager torch over ours",
            "over_call",
            limit,
            {**at, "backend": "cpu"},
            at_least=True,
        )
    ]
    bars += [
        Bar(
            "dropin_torch",
            f"drop-in {text}, backend {name}, a call: eager torch over ours",
            "over_call",
            1.0,
            {**at, "backend": name},
            at_least=True,
        )
        for name in ("torch", "torch_compiled")
    ]
    return bars


#: Peers that have no k-winners-take-all and are not given one.
_FREE_ONLY = ("Brian2 (cython)", "SpikingJelly", "Norse")

BARS: tuple[Bar, ...] = (
    *_over_floor("LIF", 1.5),
    *_in_cache(),
    *_over_floor("Izhikevich", 2.0),
    *_over_floor("AdEx", 3.0),
    *_over_floor("EIF", 3.0),
    *(
        Bar(
            "kwta",
            f"k-WTA {'×'.join(map(str, (batch, *shape)))}, {scope}: over no inhibition",
            "over_free",
            1.3,
            {"batch": batch, "shape": shape, "scope": scope},
        )
        for batch, *shape in KWTA_SHAPES
        for scope in ("feature", "location", "global")
    ),
    *(
        bar
        for name, factor in PEER_FACTORS.items()
        for bar in _peer(name, factor)
        if not (name in _FREE_ONLY and len(bar.where["shape"]) == 3)
    ),
    *_dropin(1, 30, 28, 28, limit=10.0),
    *_dropin(1, 250, 14, 14, limit=10.0),
    *_dropin(1, 64, 64, 64, limit=1.0),
    *_dropin(1, 100, 128, 128, limit=20.0),
    *(
        Bar(
            "gpu",
            f"cuda, {model}, N = {GPU_NEURONS:,}: time over a copy of as many bytes",
            "over_floor",
            1 / part,
            {"model": model, "backend": "cuda", "neurons": GPU_NEURONS},
        )
        for model, part in GPU_MODELS.items()
    ),
    *(
        Bar(
            "gpu",
            f"cuda, k-WTA {GPU_BATCH}×30×28×28, {scope}: over no inhibition",
            "over_free",
            2.0,
            {"backend": "cuda", "batch": GPU_BATCH, "scope": scope},
        )
        for scope in ("feature", "location", "global")
    ),
    Bar("gpu", "cuda: neuron-steps as on the CPU", "same_spikes", 1.0, {"backend": "cuda"}, at_least=True),
    Bar("startup", "first run of a new process, beyond import numba", "warm_beyond_numba_s", 1.0, unit="s"),
    Bar("startup", "compiling one model that is not cached", "compile_s", 5.0, unit="s"),
    # eight neurons take the kernel so little that the whole step is an upper bound of what lies above it
    Bar("startup", "a step above its kernel, N = 8", "step_us", 25.0, unit="µs"),
    Bar("memory", "run: beyond input and outputs", "beyond_mib", 64.0, {"kind": "run"}, unit="MiB"),
    *(
        Bar(
            "functional",
            f"functional {'×'.join(map(str, shape))}, each function: plain torch over ours",
            "over_plain",
            1.0,
            {"shape": list(shape)},
            at_least=True,
        )
        for shape in WAVES
    ),
    Bar("functional", "functional: results equal to plain torch's", "equal", 1.0, at_least=True),
    Bar("memory", "stream: growth over the second half", "growth_mib", 8.0, {"kind": "stream"}, unit="MiB"),
)


def table(results: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return bar, measured and whether it is met, for the benchmarks whose results are given by name."""
    lines = []
    for bar in BARS:
        if bar.benchmark not in results:
            continue
        measured = bar.measured(results[bar.benchmark]["rows"])
        lines.append({"bar": bar, "measured": measured, "met": bar.met(measured)})
    return lines


def print_table(results: Mapping[str, Mapping[str, Any]]) -> None:
    """Print every bar; what was not measured says so."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(box=None, pad_edge=False)
    for column in ("bar", "wanted", "measured", "met"):
        shown.add_column(column, justify="left" if column == "bar" else "right", no_wrap=column != "bar")
    for one in table(results):
        bar, measured = one["bar"], one["measured"]
        sign = "≥" if bar.at_least else "≤"
        value = "not measured" if measured is None else f"{measured:.3g} {bar.unit}".rstrip()
        met = "-" if measured is None else "yes" if one["met"] else "NO"
        shown.add_row(bar.what, f"{sign} {bar.limit:g} {bar.unit}".rstrip(), value, met)
    Console().print(shown)
