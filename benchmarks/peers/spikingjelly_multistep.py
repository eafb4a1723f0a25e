"""SpikingJelly: `LIFNode` in multi-step mode under `no_grad`; its faster kernels are for GPUs.

It decays as ``v - v / tau``, which rounds differently, so a spike in many thousands may fall differently.
"""

from __future__ import annotations

NAME = "SpikingJelly"
PACKAGE = "spikingjelly"
KWTA = False


def build(work):
    """Return the run and its count; see the package."""
    import torch
    from spikingjelly.activation_based import functional, neuron

    torch.set_num_threads(work.threads)
    x = torch.from_numpy(work.x)
    layer = neuron.LIFNode(
        tau=1 / (1 - work.decay), decay_input=False, v_threshold=work.threshold, v_reset=0.0, step_mode="m"
    ).eval()

    @torch.no_grad()
    def run():
        functional.reset_net(layer)
        return layer(x)

    return run, lambda result: int(torch.count_nonzero(result))
