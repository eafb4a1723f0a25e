"""Norse: `LIFBoxCell`, its neuron without a synaptic current, lifted over time, under `no_grad`.

It adds ``dt / tau * (I - v)``, so the input is scaled to give the same step; that rounds differently, and a spike in
many thousands may fall differently.
"""

from __future__ import annotations

NAME = "Norse"
PACKAGE = "norse"
KWTA = False


def build(work):
    """Return the run and its count; see the package."""
    import torch
    from norse.torch import LIFBoxCell, LIFBoxParameters, Lift

    torch.set_num_threads(work.threads)
    leak, dt = 1 - work.decay, 0.001
    x = torch.from_numpy(work.x) / leak
    parameters = LIFBoxParameters(
        tau_mem_inv=torch.tensor(leak / dt), v_th=torch.tensor(work.threshold), v_reset=torch.tensor(0.0)
    )
    layer = Lift(LIFBoxCell(parameters, dt=dt))

    @torch.no_grad()
    def run():
        return layer(x)[0]

    return run, lambda result: int(torch.count_nonzero(result))
