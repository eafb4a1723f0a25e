"""torch.compile: several steps at a time in one compiled function, so that a neuron's state stays in registers."""

from __future__ import annotations

NAME = "torch.compile"
PACKAGE = "torch"
KWTA = True
#: Steps in one compiled function; with more, compiling takes longer and running is no faster.
STEPS_AT_ONCE = 10


def build(work):
    """Return the run and its count; see the package."""
    import torch

    from spyke_numba.benchmarks.peers._torch import compete, over_maps, start

    torch.set_num_threads(work.threads)
    torch._dynamo.reset()
    x = torch.from_numpy(work.x)

    def free(u, counters, block):
        spikes = []
        for t in range(len(block)):
            u = u * work.decay + block[t]
            spiked = u >= work.threshold
            u = torch.where(spiked, 0.0, u)
            spikes.append(spiked)
        return u, counters, torch.stack(spikes), counters

    def competing(u, counters, block):
        spikes, winners = [], []
        for t in range(len(block)):
            u = u * work.decay + block[t]
            u = torch.where(over_maps(counters > 0, u), 0.0, u)
            spiked = u >= work.threshold
            won, counters = compete(u, spiked, counters, work.k, work.hold)
            u = torch.where(spiked, 0.0, u)
            spikes.append(spiked)
            winners.append(won)
        return u, counters, torch.stack(spikes), torch.stack(winners)

    advance = torch.compile(competing if work.k else free)

    @torch.no_grad()
    def run():
        u, counters = start(x)
        spikes, winners = torch.empty(x.shape, dtype=torch.bool), []
        for t in range(0, len(x), STEPS_AT_ONCE):
            u, counters, spiked, won = advance(u, counters, x[t : t + STEPS_AT_ONCE])
            spikes[t : t + STEPS_AT_ONCE] = spiked
            winners.append(won)
        return spikes, winners

    return run, lambda result: int(result[0].sum())
