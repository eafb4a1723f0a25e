"""Brian2 with its cython target: exact integration, input as a `TimedArray`, spikes by a `SpikeMonitor`.

Its differential equation ``dv/dt = (I - v) / tau``, integrated exactly, decays by ``exp(-dt / tau)``, so tau and the
input are scaled to give the same step; in float32 as all others.  Brian2 prepares every `run` anew, and a longer run
would not do so more often: its own clock, which starts after that, is used.
"""

from __future__ import annotations

import math

import numpy as np

NAME = "Brian2 (cython)"
PACKAGE = "brian2"
KWTA = False


def build(work):
    """Return the run and its count; see the package."""
    import brian2

    brian2.BrianLogger.log_level_error()
    brian2.prefs.codegen.target = "cython"
    brian2.prefs.core.default_float_dtype = np.float32
    dt = 1 * brian2.ms
    steps, size = len(work.x), math.prod(work.x.shape[1:])
    scaled = work.x.reshape(steps, size) / np.float32(1 - work.decay)
    namespace = {
        "drive": brian2.TimedArray(scaled, dt=dt),
        "tau": -dt / math.log(work.decay),
        "threshold": work.threshold,
    }
    equations = "dv/dt = (drive(t, i) - v) / tau : 1"
    group = brian2.NeuronGroup(
        size, equations, threshold="v >= threshold", reset="v = 0", method="exact", dt=dt, namespace=namespace
    )
    monitor = brian2.SpikeMonitor(group)
    network = brian2.Network(group, monitor)
    network.store()

    def run():
        network.restore()
        elapsed = []
        # its check of float32 potentials against 1e50 would warn
        with np.errstate(over="ignore"):
            network.run(
                steps * dt,
                report=lambda taken, *_: elapsed.append(float(taken)),
                report_period=1e6 * brian2.second,
            )
        return elapsed[-1]

    return run, lambda _: int(monitor.num_spikes)
