"""A spiking layer in plain eager torch, as a user would write it: what the compiled layers are timed against.

One call per step, state created by the first call, one tensor operation after the other, and
k-winners-take-all as a loop that asks for each winner with `.item()`. The numbers are those of the drop-in
neurons.
"""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["MODELS", "EagerLayer"]

MODELS = ("LIF_Simple", "LIF_ode", "EIF", "AdEx")
SCOPES = ("feature", "location", "global")
DEFAULTS = {
    "ts": 0.001,
    "tau_rc": 0.02,
    "resting_potential": 0.0,
    "v_reset": None,
    "C": 0.281,
    "delta_t": 0.5,
    "theta_rh": None,
    "a": 0.6,
    "b": 0.7,
    "tau_w": 1.0,
}


class EagerLayer:
    """A layer of `model` neurons with k-winners-take-all.

    Parameters
    ----------
    model : {"LIF_Simple", "LIF_ode", "EIF", "AdEx"}
    threshold : float or Tensor
        A tensor (1, F, H, W) gives each neuron its own.
    k, radius, scope
        Winners per step, the rows and columns around a winner that cannot win in the same step, and what a
        winner holds at rest: its "feature" map, its "location" in all maps, or all ("global").
    refractory_timesteps : int
        For how many steps it holds them.
    **params
        Any of ts, tau_rc, resting_potential, v_reset, C, delta_t, theta_rh, a, b, tau_w.
    """

    def __init__(self, model, threshold, k, radius=0, scope="feature", refractory_timesteps=2, **params):
        if model not in MODELS:
            raise ValueError(f"the model is {model!r}; allowed are {', '.join(MODELS)}")
        if scope not in SCOPES:
            raise ValueError(f"the scope is {scope!r}; allowed are {', '.join(SCOPES)}")
        unknown = set(params) - set(DEFAULTS)
        if unknown:
            raise TypeError(f"unknown parameters {sorted(unknown)}; allowed are {sorted(DEFAULTS)}")
        values = {**DEFAULTS, **params}
        self.model, self.threshold, self.k, self.radius, self.scope = model, threshold, k, radius, scope
        self.refractory_timesteps = refractory_timesteps
        self.ts, self.tau, self.C = values["ts"], values["tau_rc"], values["C"]
        self.rest = values["resting_potential"]
        self.v_reset = self.rest if values["v_reset"] is None else values["v_reset"]
        self.delta_t, self.theta_rh = values["delta_t"], values["theta_rh"]
        if self.theta_rh is None:
            self.theta_rh = threshold - 0.25 * abs(threshold)
        self.a, self.b, self.tau_w = values["a"], values["b"], values["tau_w"]
        self.decay = 1 - self.ts / self.tau
        self.R = self.tau / self.C
        self.amplitude = 1.0 if model == "LIF_Simple" else 1 / self.ts
        self.reset()

    def reset(self):
        """Forget the state; the next call creates it anew."""
        self.u: Any = None
        self.w: Any = None
        self.refractory: Any = None

    @torch.no_grad()
    def __call__(self, potentials):
        """Advance one step with the input (1, F, H, W); return (spikes, potential after reset, winners)."""
        if self.u is None:
            self.u = torch.full_like(potentials, self.rest)
            self.refractory = torch.zeros_like(potentials, dtype=torch.int32)
            if self.model == "AdEx":
                self.w = torch.zeros_like(potentials)
        held = self.refractory > 0
        u = self.membrane(potentials)
        u[held] = self.rest
        if self.model in ("EIF", "AdEx"):
            u.clamp_(min=self.rest)
        if self.model == "AdEx":
            self.w += (self.a * (u - self.rest) - self.w) * (self.ts / self.tau_w)
        spiked = (u >= self.threshold) & ~held
        winners = self.choose(u, spiked)
        spikes = spiked.to(u.dtype) * self.amplitude
        self.u = torch.where(spiked, self.v_reset, u)
        if self.model == "AdEx":
            self.w[spiked] += self.b
        self.refractory = (self.refractory - 1).clamp_(min=0)
        for f, r, c in winners:
            if self.scope == "feature":
                self.refractory[0, f] = self.refractory_timesteps
            elif self.scope == "location":
                self.refractory[0, :, r, c] = self.refractory_timesteps
            else:
                self.refractory[:] = self.refractory_timesteps
        return spikes, self.u, winners

    def membrane(self, current):
        """Return the potential that the model's equation gives for the next step."""
        u = self.u
        if self.model == "LIF_Simple":
            return u * self.decay + current
        if self.model == "LIF_ode":
            return u + (self.rest - u) * (self.ts / self.tau) + current * (self.ts / self.C)
        upswing = self.delta_t * torch.exp((u - self.theta_rh) / self.delta_t)
        if self.model == "EIF":
            return u + self.ts * ((self.rest - u + upswing) / self.tau + current / self.C)
        return u + self.ts / self.tau * (self.rest - u + upswing + self.R * (current - self.w))

    def choose(self, u, spiked):
        """Return up to k winners (f, r, c) among the neurons that spiked, one at a time."""
        _, maps, rows, columns = u.shape
        candidates = torch.where(spiked, u, -torch.inf)
        winners = []
        for _ in range(min(self.k, maps)):
            index = candidates.argmax().item()
            f, location = divmod(index, rows * columns)
            r, c = divmod(location, columns)
            if candidates[0, f, r, c].item() == -torch.inf:
                break
            winners.append((f, r, c))
            candidates[0, f] = -torch.inf
            if self.radius > 0:
                top, left = max(r - self.radius, 0), max(c - self.radius, 0)
                candidates[:, :, top : r + self.radius + 1, left : c + self.radius + 1] = -torch.inf
        return winners
