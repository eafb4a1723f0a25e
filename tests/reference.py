"""An independent, slow and obvious statement in plain numpy of what a layer computes (native form).

Nothing here comes from the package: each model's membrane and adaptation is written out as the documented
equation, one step is written out in the documented order, and winners are chosen by plain Python loops. It is
the oracle that every backend is compared with, and is itself proven by `test_reference.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Values = dict[str, Any]


# ------------------------------------------------------------------------------------------------------------
# Membranes: (p, u, w, current) -> u before hold and floor. `p` holds every parameter in the layer's dtype.


def if_membrane(p, u, w, current):
    return u + current * p["ts"] / p["C"]


def lif_membrane(p, u, w, current):
    arriving = np.where(p["exact_input"] == 1, p["tau/C"] * (1 - p["exp(-ts/tau)"]), p["ts"] / p["C"])
    return p["resting_potential"] + (u - p["resting_potential"]) * p["exp(-ts/tau)"] + current * arriving


def lif_ode_membrane(p, u, w, current):
    return u + (p["resting_potential"] - u) * p["ts"] / p["tau_rc"] + current * p["ts"] / p["C"]


def lif_simple_membrane(p, u, w, current):
    return p["resting_potential"] + (u - p["resting_potential"]) * p["1-ts/tau"] + current


def upswing_of_step(p, u, share):
    """What the exponential adds in a step; at most a thousand times the way from rest to the threshold."""
    free = share * p["delta_t"] * np.exp((u - p["theta_rh"]) / p["delta_t"])
    return np.minimum(free, 1000 * (p["threshold"] - p["resting_potential"]))


def eif_membrane(p, u, w, current):
    upswing = upswing_of_step(p, u, p["ts"] / p["tau_rc"])
    return u + p["ts"] * ((p["resting_potential"] - u) / p["tau_rc"] + current / p["C"]) + upswing


def eif_simple_membrane(p, u, w, current):
    upswing = upswing_of_step(p, u, 1)
    return p["resting_potential"] + (u - p["resting_potential"]) * p["1-ts/tau"] + upswing + current


def qif_membrane(p, u, w, current):
    drift = p["a"] * (u - p["resting_potential"]) * (u - p["u_c"]) / p["tau_rc"]
    return u + p["ts"] * (drift + current / p["C"])


def adex_membrane(p, u, w, current):
    pull = p["resting_potential"] - u + p["tau/C"] * (current - w)
    return u + p["ts"] / p["tau_rc"] * pull + upswing_of_step(p, u, p["ts"] / p["tau_rc"])


def izhikevich_membrane(p, u, w, current):
    parabola = p["ts in ms"] * (p["c2"] * u * u + p["c1"] * u)
    most = 1e9 * (p["threshold"] - p["resting_potential"])
    return u + np.minimum(parabola, most) + p["ts in ms"] * (p["c0"] + current - w)


# ------------------------------------------------------------------------------------------------------------
# Adaptations: (p, old u, u' after hold and floor, w) -> w, and what a spike adds to w.


def adex_adaptation(p, u_old, u_new, w):
    u = np.where(p["w_from_new"] != 0, np.minimum(u_new, p["threshold"]), u_old)  # the overshoot is cut
    return w + (p["a"] * (u - p["resting_potential"]) - w) * p["ts"] / p["tau_w"]


def izhikevich_adaptation(p, u_old, u_new, w):
    u = np.where(p["w_from_new"] != 0, u_new, u_old)
    return w + p["ts in ms"] * p["a"] * (p["b"] * (u + p["w_offset"]) - w)


SHARED: Values = {"ts": 0.001, "resting_potential": 0.0, "v_reset": None, "refractory_timesteps": 2}
LEAKY: Values = {"tau_rc": 0.02, "C": 0.281}
EXPONENTIAL: Values = {**LEAKY, "delta_t": 0.5, "theta_rh": None}


class Model:
    """A membrane, its parameters and its own defaults of shared ones, and perhaps a floor at rest and an adaptation."""

    def __init__(
        self,
        membrane: Callable,
        params: Mapping[str, Any],
        floor: bool = False,
        adaptation: Callable | None = None,
        jump: str | None = None,
    ):
        self.membrane, self.floor, self.adaptation, self.jump = membrane, floor, adaptation, jump
        self.defaults: Values = {**SHARED, **params}


MODELS: dict[str, Model] = {
    "IF": Model(if_membrane, {"C": 0.281}),
    "LIF": Model(lif_membrane, {**LEAKY, "exact_input": 0.0}),
    "LIF_ode": Model(lif_ode_membrane, LEAKY),
    "LIF_Simple": Model(lif_simple_membrane, {"tau_rc": 0.02}),
    "EIF": Model(eif_membrane, EXPONENTIAL, floor=True),
    "EIF_Simple": Model(eif_simple_membrane, {"tau_rc": 0.02, "delta_t": 0.5, "theta_rh": None}),
    "QIF": Model(qif_membrane, {**LEAKY, "a": 0.001, "u_c": None}, floor=True),
    "AdEx": Model(
        adex_membrane,
        {**EXPONENTIAL, "a": 0.6, "b": 0.7, "tau_w": 1.0, "w_from_new": 1.0},
        floor=True,
        adaptation=adex_adaptation,
        jump="b",
    ),
    "Izhikevich": Model(
        izhikevich_membrane,
        {
            "a": 0.02,
            "b": 0.2,
            "c": -65.0,
            "d": 8.0,
            "c2": 0.04,
            "c1": 5.0,
            "c0": 140.0,
            "w_offset": 0.0,
            "w_from_new": 1.0,
            "threshold": 30.0,
            "resting_potential": None,
            "refractory_timesteps": 0,
        },
        adaptation=izhikevich_adaptation,
        jump="d",
    ),
}


def resolve(model_name: str, params: Mapping[str, Any], shape: tuple[int, int, int]) -> Values:
    """Every parameter, given, default or derived, as a float64 array of the layer's shape."""
    model = MODELS[model_name]
    unknown = set(params) - set(model.defaults) - {"threshold"}
    if unknown or "threshold" not in {**model.defaults, **params}:
        raise KeyError(
            f"{model_name}: unknown {sorted(unknown)}" if unknown else f"{model_name} needs a threshold"
        )
    given = {**model.defaults, **{name: value for name, value in params.items() if value is not None}}
    p = {
        name: np.array(np.broadcast_to(np.asarray(value, np.float64), shape))
        for name, value in given.items()
        if value is not None
    }
    if "resting_potential" not in p:
        p["resting_potential"] = p["c"]
    if "v_reset" not in p:
        p["v_reset"] = p["c"] if model_name == "Izhikevich" else p["resting_potential"]
    for upstroke in ("theta_rh", "u_c"):
        if upstroke in model.defaults and upstroke not in p:
            p[upstroke] = p["threshold"] - 0.25 * np.abs(p["threshold"])
    if "tau_rc" in p:
        p["exp(-ts/tau)"] = np.exp(-p["ts"] / p["tau_rc"])
        p["1-ts/tau"] = 1.0 - p["ts"] / p["tau_rc"]
        if "C" in p:
            p["tau/C"] = p["tau_rc"] / p["C"]
    p["ts in ms"] = p["ts"] * 1000.0
    return p


def choose_winners(spiked: np.ndarray, u: np.ndarray, k: int, radius: int) -> list[tuple[int, int, int]]:
    """Up to k winners of one sample in the order in which they are picked; arrays are (F, H, W)."""
    maps, rows, columns = spiked.shape
    allowed = [
        (f, r, c) for f in range(maps) for r in range(rows) for c in range(columns) if spiked[f, r, c]
    ]  # in flat order
    winners: list[tuple[int, int, int]] = []
    while allowed and len(winners) < k:
        best = allowed[0]
        for candidate in allowed[1:]:
            if u[candidate] > u[best]:  # strictly: on a tie the lower flat index stays
                best = candidate
        winners.append(best)
        remaining = []
        for f, r, c in allowed:
            same_map = f == best[0]
            in_square = radius > 0 and abs(r - best[1]) <= radius and abs(c - best[2]) <= radius
            if not same_map and not in_square:
                remaining.append((f, r, c))
        allowed = remaining
    return winners


def inhibited_set(winner: tuple[int, int, int], scope: str, shape: tuple[int, int, int]) -> np.ndarray:
    """A boolean (F, H, W): the neurons that the winner makes refractory."""
    f, r, c = winner
    inhibited = np.zeros(shape, bool)
    if scope == "feature":
        inhibited[f] = True
    elif scope == "location":
        inhibited[:, r, c] = True
    elif scope == "global":
        inhibited[:] = True
    else:
        raise ValueError(f"scope {scope!r}; feature, location or global")
    return inhibited


def simulate(
    model_name: str,
    params: Mapping[str, Any],
    x: np.ndarray,
    *,
    kwta: Mapping[str, Any] | None = None,
    dtype: str = "float64",
    initial: Mapping[str, Any] | None = None,
) -> dict[str, np.ndarray | None]:
    """Run a layer of `model_name` over the input x of shape (T, B, F, H, W).

    `params` are scalars or arrays that broadcast to (F, H, W); `kwta` is None (each neuron its own refractory
    period) or a dict of k, scope (feature by default) and radius (0 by default); `initial` may hold u, w and
    refractory, each broadcasting to (B, F, H, W).

    Returns a dict, every array with the leading axes (T, B): `spikes` (bool), `u` after the reset, `u_pre`
    before it, `thresholded` (`u_pre` where a neuron spikes, else 0), `pulses` (`spike_amplitude` there, 1 unless
    given), `packed_spikes` (eight neurons to a byte), `events` (a row t, b, n for each spike), `w` (None without
    adaptation), `refractory` (int, the counter after the step) and `winners` (T, B, k, 3), int32, -1 where there is
    none (None without k-WTA).
    """
    steps, batch, *layer_shape = x.shape
    shape = (layer_shape[0], layer_shape[1], layer_shape[2])
    model = MODELS[model_name]
    scalar = np.dtype(dtype).type
    params = dict(params)
    amplitude = np.broadcast_to(np.asarray(params.pop("spike_amplitude", 1.0)), shape)
    exact = resolve(model_name, params, shape)
    delay = exact.pop("refractory_timesteps").astype(int)
    p = {name: value.astype(scalar) for name, value in exact.items()}
    x = x.astype(scalar)
    initial = dict(initial or {})

    start = p["c"] if model_name == "Izhikevich" else p["resting_potential"]
    u = np.array(np.broadcast_to(np.asarray(initial.pop("u", start)), (batch, *shape)), scalar)
    w = np.zeros_like(u)
    if model.adaptation:
        w0 = p["b"] * u if model_name == "Izhikevich" else 0.0
        w = np.array(np.broadcast_to(np.asarray(initial.pop("w", w0)), (batch, *shape)), scalar)
    counter = np.array(np.broadcast_to(np.asarray(initial.pop("refractory", 0)), (batch, *shape)), int)
    if initial:
        raise KeyError(f"{model_name} has no initial {sorted(initial)}")

    out_spikes = np.zeros(x.shape, bool)
    out_u, out_pre, out_w = np.zeros_like(x), np.zeros_like(x), np.zeros_like(x)
    out_counter = np.zeros(x.shape, int)
    out_winners = None if kwta is None else np.full((steps, batch, kwta["k"], 3), -1, np.int32)

    for t in range(steps):
        for sample in range(batch):
            u_old, held = u[sample].copy(), counter[sample] > 0

            with np.errstate(over="ignore", invalid="ignore"):
                u_new = model.membrane(p, u_old, w[sample], x[t, sample])  # 1
            u_new = np.where(held, p["resting_potential"], u_new)  # 2
            if model.floor:
                u_new = np.maximum(u_new, p["resting_potential"])  # 3
            w_new = w[sample]
            if model.adaptation:
                w_new = model.adaptation(p, u_old, u_new, w[sample])  # 5
            spiked = ~held & (u_new >= p["threshold"])  # 6

            remaining = np.where(held, counter[sample] - 1, 0)
            if kwta is None:
                remaining = np.where(spiked, delay, remaining)  # 9
            else:
                winners = choose_winners(spiked, u_new, kwta["k"], kwta.get("radius", 0))  # 7
                period = np.full(shape, -1)  # -1: in no winner's set
                for rank, winner in enumerate(winners):
                    out_winners[t, sample, rank] = winner
                    inhibited = inhibited_set(winner, kwta.get("scope", "feature"), shape)
                    period = np.where(inhibited, np.maximum(period, delay[winner]), period)
                remaining = np.where(period >= 0, period, remaining)  # 9

            u[sample] = np.where(spiked, p["v_reset"], u_new)  # 8
            if model.jump:
                w[sample] = np.where(spiked, w_new + p[model.jump], w_new)
            counter[sample] = remaining

            out_spikes[t, sample], out_pre[t, sample], out_u[t, sample] = spiked, u_new, u[sample]
            out_w[t, sample], out_counter[t, sample] = w[sample], counter[sample]

    for array in (u, w, out_pre):
        assert array.dtype == scalar  # a constant that was not cast would have widened it
    return {
        "spikes": out_spikes,
        "u": out_u,
        "packed_spikes": np.packbits(out_spikes.reshape(steps, batch, -1), axis=-1),
        "events": np.argwhere(out_spikes.reshape(steps, batch, -1)),
        "u_pre": out_pre,
        "thresholded": np.where(out_spikes, out_pre, scalar(0)),
        "pulses": np.where(out_spikes, amplitude, 0).astype(scalar),
        "w": out_w if model.adaptation else None,
        "winners": out_winners,
        "refractory": out_counter,
    }
