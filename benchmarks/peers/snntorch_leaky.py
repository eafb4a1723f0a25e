"""snnTorch: `Leaky` called step by step under `no_grad`, as its tutorials do.

It spikes above the threshold, not at it.
"""

from __future__ import annotations

NAME = "snnTorch"
PACKAGE = "snntorch"
KWTA = True


def build(work):
    """Return the run and its count; see the package."""
    import snntorch
    import torch

    from spyke_numba.benchmarks.peers._torch import compete, over_maps, start

    torch.set_num_threads(work.threads)
    x = torch.from_numpy(work.x)
    layer = snntorch.Leaky(work.decay, threshold=work.threshold, reset_mechanism="zero")

    @torch.no_grad()
    def run():
        u, counters = start(x)
        spikes, winners = [], []
        for t in range(len(x)):
            # with the default delay of the reset, u is what it was at the threshold
            spiked, u = layer(x[t], u)
            if work.k:
                held = over_maps(counters > 0, u)
                u, spiked = u.masked_fill(held, 0), spiked.masked_fill(held, 0)
                won, counters = compete(u, spiked > 0, counters, work.k, work.hold)
                winners.append(won)
            spikes.append(spiked)
        return torch.stack(spikes), winners

    return run, lambda result: int(torch.count_nonzero(result[0]))
