"""Eager torch: a loop over the steps, one tensor operation after the other, state changed in place."""

from __future__ import annotations

NAME = "eager torch"
PACKAGE = "torch"
KWTA = True


def build(work):
    """Return the run and its count; see the package."""
    import torch

    from spyke_numba.benchmarks.peers._torch import compete, over_maps, start

    torch.set_num_threads(work.threads)
    x = torch.from_numpy(work.x)

    @torch.no_grad()
    def free():
        u, spikes = torch.zeros_like(x[0]), torch.empty(x.shape, dtype=torch.bool)
        for t in range(len(x)):
            u.mul_(work.decay).add_(x[t])
            spiked = torch.ge(u, work.threshold, out=spikes[t])
            u.masked_fill_(spiked, 0)
        return spikes, None

    @torch.no_grad()
    def competing():
        u, counters = start(x)
        spikes, winners = torch.empty(x.shape, dtype=torch.bool), []
        for t in range(len(x)):
            u.mul_(work.decay).add_(x[t])
            u.masked_fill_(over_maps(counters > 0, u), 0)
            spiked = torch.ge(u, work.threshold, out=spikes[t])
            won, counters = compete(u, spiked, counters, work.k, work.hold)
            winners.append(won)
            u.masked_fill_(spiked, 0)
        return spikes, torch.stack(winners)

    return competing if work.k else free, lambda result: int(result[0].sum())
