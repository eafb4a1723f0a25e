"""Writes the CPU backend's modules: rows of neurons, and the loop over samples, steps, tiles or maps around them."""

from __future__ import annotations

import numpy as np

from spyke_numba.compile.program import RECORDS, REFRACTORY, Program
from spyke_numba.compile.step import Counters, helper_lines, step_lines
from spyke_numba.compile.writer import Writer, mangled

#: Steps by which a neuron is advanced before the next one is: several streams of input hide the memory's latency, and
#: the state goes through the registers once. A power of two.
TOGETHER = 4
#: Neurons that are advanced before more of the input is asked for, and how far ahead that lies.
BLOCK, AHEAD = 512, 1024
#: Vectors of neurons that go side by side through a row, each operation for all of them. An operation that waits takes
#: one of the few places from which the processor chooses what to do next, and a single vector's would fill them all.
INTERLEAVED = 4

_HEADER = '''\
"""Generated for {label}. Do not edit."""

import numpy as np
from numba import njit

from spyke_numba.backends.cpu.parts import (
    BITS,
    FETCHED_LINES,
    INNER,
    LINE,
    NO_BITS,
    NO_STEPS,
    ONE_BIT,
    ONE_STEP,
    WINDOW,
    abs,
    address_of,
    array_at,
    atomic_add,
    begin_window,
    bits_of,
    chosen,
    claim,
    copy,
    copy_fired,
    copy_reset,
    end_window,
    enters,
    exponent,
    fetch,
    fetch_row,
    find_places,
    first_fired,
    fma,
    half_pow2,
    held_at,
    interleaved,
    larger,
    largest,
    largest_fired,
    lowest_bit,
    mantissa,
    mark_of,
    max,
    min,
    part,
    remaining,
    rint,
    rows_lie_apart,
    select,
    sqrt,
    tainted,
    use_widest_vectors,
    wait_until,
    where,
)

real = np.{dtype}
LOWEST_KEY = real(-np.inf)
NO_NUMBER = real(np.nan)
UNTAINTED = real(1)
'''

# an explicit signature: it is compiled, or comes from the disk, when the module is loaded
_JIT = '@njit("void(int64, int64)", cache=True, nogil=True, error_model="numpy", _nrt=False)'
_JIT_ROW = '@njit(error_model="numpy", **INNER)'
# a map is short: to call a function with its dozens of arguments would take a tenth of its time
_JIT_MAP = '@njit(error_model="numpy", forceinline=True, **INNER)'
_JIT_HELPER = "@njit(forceinline=True, **INNER)"

_FREE = """\
tiles = (N + tile - 1) // tile
{marks}
while True:
    item = atomic_add(progress, 1)
    if item >= B * tiles:
        break
    b = item // tiles
    lo = (item % tiles) * tile
    hi = min(lo + tile, N)
    {keep}
    for first in range(0, steps, WINDOW):
        last = min(first + WINDOW, steps)
        {begin_window}
        t = first
        while t < last:
            if together > 0 and last - t >= {times}:
                taint += {advance_together}
                t += {times}
            else:
                taint += {advance}
                {record}
                t += 1
        {end_window}
"""

_COMPETING = """\
size = H * W
F = N // size
front_runners, lowest = front_runners_of[me, :most], lowest_key[0]
{prune}
{prepare}
b = -1
while True:
    # samples one after the other where threads share each; else neighbours for each thread, which share cache lines
    b = b + 1 if owners > 0 else claim(progress + 2 * LINE, 0, me, slots, B)
    if b < 0 or b >= B:
        break
    turns_b = progress + (2 + b * (owners + 2)) * LINE
    for t in range(steps):
        upcoming = min(t + 1, steps - 1)
        reset_from = {reset_from} if t > 0 or pending > 0 else NO_NUMBER
        {next_rows}
        piece = claim(turns_b, t, me, owners, pieces) if owners > 0 else 0
        done = 0
        if piece >= 0:
            {tiling}
            front_runners[:] = LOWEST_KEY
        while piece >= 0:
            first_map, last_map = F * piece // pieces, F * (piece + 1) // pieces
            {returns}
            f = first_map
            while f < last_map:
                end = min(f + group, last_map)
                {alike}
                {rest}
                best, best_place = LOWEST_KEY, -1
                lo = hi = f * size
                while hi < end * size:
                    lo, hi = hi, min(hi + row, end * size)
                    {input_ahead}
                    {rows}
                    {keep}
                    {advance}
                    taint += taint_of_row
                    {record}
                    {place}
                    best = larger(best_of_row, best)
                if size > row:
                    map_keys[b, f], map_places[b, f] = best, best_place
                    if prune:
                        enters(best, front_runners)
                    f = end
                    continue
                if size == 1:
                    # a population: each neuron is a map of its own
                    copy_fired(row__u, {threshold}, lowest, part(map_keys, (b,), lo, hi))
                    part(map_places, (b,), lo, hi)[:] = 0
                    f = end
                    continue
                for g in range(f, end):
                    map_keys[b, g] = best
                    if end - f > 1 and best > LOWEST_KEY:
                        lo, hi = g * size, (g + 1) * size
                        map_keys[b, g] = largest_fired(part(g__u, (b,), lo, hi), {threshold}, lowest)
                    if prune:
                        enters(map_keys[b, g], front_runners)
                f = end
            if 1 < size <= row:
                {places}
            done += 1
            piece = claim(turns_b, t, me, owners, pieces) if owners > 0 else -1
        concludes = owners == 0
        if owners > 0 and done > 0:
            # whoever adds the step's last pieces
            concludes = atomic_add(turns_b + owners * LINE, done) + done == (t + 1) * pieces
        if not concludes:
            wait_until(turns_b + (owners + 1) * LINE, t + 1)
            continue
        if owners > 0:
            # what other threads have found, or its first lines, both at once
            fetch(address_of(map_keys[b]))
            fetch(address_of(map_places[b]))
        maps_of_sample = map_keys[b], map_places[b], best_of_blocks_of[me]
        left = part(left_of, (me,), 0, size)
        n = select(g__u[b], {thresholds}, *maps_of_sample, left, most, radius, W, size, won[b], lowest{amplitude})
        # where periods differ, sets that winners share take the longest, whatever they were held for before
        for again in range({passes}):
            for q in range(n):
                front = won[b, q, 0]
                place = won[b, q, 1] * W + won[b, q, 2]
                period = {period}
                start, stop, stride = {inhibited}
                for j in range(start, stop, stride):
                    g_r[b, j] = period if again == 0 else max(g_r[b, j], period)
                    {rests}
        if winners.shape[0] > 0:
            for q in range(k):
                for i in range(3):
                    winners[t, b, q, i] = won[b, q, i] if q < n else -1
        if out_refractory.shape[0] > 0:
            {counters}
        {settle}
        if owners > 0:
            atomic_add(turns_b + (owners + 1) * LINE, 1)
"""

#: The input that is on its way while a row is advanced, where no map is left out: the same row's in the next step.
_A_STEP_AHEAD = """\
ahead = hi - lo if fetches > 0 else 0
next_at = x_at + (((upcoming & steps_given) * B + b) * N + lo) * {item}
"""

#: Or what is `ahead` neurons further on: in the same map, in the next one, or in the first one of the next step, of the
#: sample or of the only piece that the thread has of it.
_A_ROW_AHEAD = """\
ahead = next_at = 0
if fetches > 0:
    ahead, following, then = {ahead}, hi, t
    if hi == end * size:
        g = end
        {seek}
        following = g * size
    next_at = x_at + (((then & steps_given) * B + b) * N + following) * {item}
"""

#: A step ahead, it is not known yet who wins and needs no input then: only where winners are few.
_EITHER = """\
if step_ahead > 0:
    {a_step_ahead}
else:
    {a_row_ahead}
"""

_SEEK_NEXT = """\
if g == last_map and returns:
    g, then = first_map, t + 1
"""

#: Held maps need no input: what is on its way is always the same number of others ahead.
_SEEK_WANTED = f"""\
wanted = max(1, {AHEAD} // row)
while wanted > 0:
    if g == last_map:
        if then > t or not returns:
            break
        g, then = first_map, t + 1
    elif g_r[b, g] > then:
        g += 1
    else:
        wanted -= 1
        g += wanted > 0
"""

#: Where the group ends so that all its maps are held, or none is; and if so, for the first time or not. Neurons of a
#: population, each a map of its own, are not cut apart.
_ALIKE = """\
held, resting = g_r[b, f] > t, t >= rest_from[b, f]
some = size == 1 and held_at(part(g_r, (b,), f, end), t, held_r)
if size > 1:
    for g in range(f + 1, end):
        if (g_r[b, g] > t) != held or (held and (t >= rest_from[b, g]) != resting):
            end = g
            break
"""

#: The same held locations for each map of a group: all that is there is copied behind it.
_TILING = """\
held_at(g_r[b], t, part(held_r, (), 0, size))
tiled, tiles = size, min(group, F) * size
while tiled < tiles:
    more = min(tiled, tiles - tiled)
    copy(part(held_r, (), 0, more), part(held_r, (), tiled, tiled + more))
    tiled += more
"""

#: Advance a row whose maps are alike, or not.
_ADVANCE_ANY = """\
if some:
    row_r = part(held_r, (), 0, hi - lo)
    best_of_row, taint_of_row = {some}
else:
    best_of_row, taint_of_row = {all}
"""

#: Held maps need neither input nor membrane, and lie at rest from the first such step on. Nothing is written that
#: another thread reads at every step: the line that holds it would go from one core to the other and back.
_REST = """\
if {held}:
    hi = f * size
    while hi < end * size:
        lo, hi = hi, min(hi + row, end * size)
        {rows}
        {keep}
        if {resting}:
            {stay}
        else:
            {rest}
        {record}
        {fetch}
    keys_of_group = part(map_keys, (b,), f, end)
    if largest(keys_of_group, lowest) != LOWEST_KEY:
        keys_of_group[:] = LOWEST_KEY
    f = end
    continue
"""

#: While a block of neurons is advanced, the input of a later one is on its way, and what its outputs of the next step
#: will overwrite.
_FETCHING = f"""\
best, taint = lowest, UNTAINTED
if ahead == 0:
    return {{inner}}({{whole}})
for at in range(0, x0.size, {BLOCK}):
    to = min(at + {BLOCK}, x0.size)
    {{place}}
    fetch_row(place, (to - at) * {{item}})
    {{fetch}}
    best_of_block, taint_of_block = {{inner}}({{part}})
    best, taint = larger(best_of_block, best), taint + taint_of_block
return best, taint
"""

#: The place of that input: as far behind `next_at` as the block is behind its row's begin, or in the same row, `ahead`
#: neurons further on, while there are so many.
_PLACE_A_STEP_AHEAD = "place = next_at + at * {item}"
_PLACE_A_ROW_AHEAD = """\
later = at + ahead
place = row_at + later * {item}
if later >= x0.size:
    place = next_at + (later - x0.size) * {item}
"""

#: Where winners of a map of several rows, and of smaller maps, are found while they are in the cache.
_PRUNE = """\
# with many winners it takes longer to tell whether a map can win than to find its place
prune = most <= 32
"""
_PLACE = """\
if size > row:
    if best_of_row > best and (best_of_row >= front_runners[0] or not prune):
        best_place = lo - f * size + first_fired(row__u, best_of_row, {threshold})
"""
_PLACES = """\
maps_of_piece = map_keys[b], map_places[b], first_map, last_map
find_places(g__u[b], {thresholds}, *maps_of_piece, size, front_runners[0])
"""

#: First and last counter of a winner's inhibited set and their stride, for counters of neurons and of sets.
_INHIBITED = {
    ("feature", False): "front * size, (front + 1) * size, 1",
    ("location", False): "place, F * size, size",
    ("global", False): "0, F * size, 1",
    ("feature", True): "front, front + 1, 1",
    ("location", True): "place, place + 1, 1",
    ("global", True): "0, 1, 1",
}

#: Record each neuron's counter, from counters of neurons or from the step until which a set is held.
_OWN_COUNTERS = "copy(g_r[b], part(out_refractory, (t, b), 0, N))"
_COUNTERS_OF_SETS = {
    "feature": """\
for f in range(F):
    part(out_refractory, (t, b), f * size, f * size + size)[:] = max(np.int32(g_r[b, f] - t - 1), NO_STEPS)
""",
    "location": """\
for f in range(F):
    remaining(g_r[b], t + 1, part(out_refractory, (t, b), f * size, f * size + size))
""",
    "global": "part(out_refractory, (t, b), 0, N)[:] = max(np.int32(g_r[b, 0] - t - 1), NO_STEPS)",
}


def _filled(template: str, **blocks: list[str]) -> list[str]:
    # The lines of a template; a block of several lines, or none, stands alone in its line and takes its indentation.
    lines = []
    for line in template.splitlines():
        indent, name = line[: len(line) - len(line.lstrip())], line.strip()[1:-1]
        if name in blocks and line.strip() == f"{{{name}}}":
            lines += [indent + block_line for block_line in blocks[name]]
        else:
            single = {name: block[0] for name, block in blocks.items() if len(block) == 1}
            lines.append(line.format(**single))
    return lines


#: Progress holds who has taken what, and who has ended.
_END = """\
if not np.isfinite(taint):
    not_finite[0] = 1
if me > 0:
    atomic_add(progress + LINE, 1)
"""


def _body(lines: list[str]) -> list[str]:
    return [*(f"    {line}" for line in [*lines, *_END.splitlines()]), ""]


class ModuleSource:
    """Writes a program's module: rows of neurons first, then the loop over samples, steps and tiles or maps.

    `table` says what the function ``run`` is given, and `counters` how it holds neurons.
    """

    def __init__(self, program: Program):
        self.program = program
        self.writer = Writer()
        self.scalars = [mangled("p", name) for name in program.scalars]
        self.varying_period = REFRACTORY in program.varying
        #: Recorded arrays by name, and their types: what the rows write of themselves, and what is copied after them.
        self.written = {name: "np.bool_" if name == "spikes" else "real" for name in program.records}
        self.copied = {**dict.fromkeys(program.states, "real"), "refractory": "np.int32"}
        #: Whether neurons that are held read their input, too.
        adaptation = program.spec.functions.get("adaptation")
        self.held_reads = adaptation is not None and "I" in adaptation.arguments
        #: Bytes of a potential.
        self.item = np.dtype(program.dtype).itemsize
        self.counters: Counters = "own"
        if program.compact:
            self.counters = "shared" if program.inhibition == "location" else "free"
        elif program.inhibition is None:
            self.counters = "until"

    def row(
        self, name: str, counters: Counters, times: int = 1, at_rest: bool = False, fetching: bool = False
    ) -> list[str]:
        # a function that advances the neurons of one row by one step, or by so many before it goes to the next, and
        # may ask for input on the way
        program, steps, rows = self.program, range(times), list(self.rows(counters, times))
        spikes, competes = counters != "held", counters != "held" and program.inhibition is not None
        reads = spikes or self.held_reads
        arguments = [*rows, *self.scalars]
        arguments += ["now0", "row_period"] if counters == "until" else []
        # not as a constant: LLVM would merge the choice of the key with the maximum, and then find no maximum
        arguments += ["lowest"] if competes else []
        arguments += ["reset_from"] if program.inhibition is not None else []
        before = ["best = lowest"] if competes else []
        before += ["taint = UNTAINTED"]
        body = [f"{mangled('s', state)} = {mangled('row', state)}[j]" for state in program.states]
        body += ["r = row_r[j]"] if counters in ("own", "until", "shared") else []
        body += [f"{mangled('p', name)} = {mangled('row_p', name)}[j]" for name in program.arrays]
        if at_rest:
            # as the step before has left it, and leaves it again
            body.append("s__u = p__resting_potential")
            body += ["s__u = where(s__u < p__floor, p__floor, s__u)"] if program.floor else []
        elif program.inhibition is not None:
            # whoever crossed the threshold in the last step still stands there
            own_threshold = "(s__u >= p__threshold) & " if self.varies("threshold") else ""
            body.append(f"s__u = chosen({own_threshold}(s__u >= reset_from), p__v_reset, s__u)")
        for i in steps:
            body.append(f"i_in = x{i}[j]")
            if reads and i % 2 == 0:
                factor = f"next{i + 1}[j]" if times > 1 else "UNTAINTED"
                body.append(f"taint = tainted(taint, i_in, {factor})")
            if counters == "until":
                before.append(f"now{i} = np.uint8(now0 + {i})")
                # what does not vary is computed once
                marks, period = (body, "row_period[j]") if self.varying_period else (before, "row_period[0]")
                marks.append(f"mark{i} = mark_of({period}, now{i})")
                body.append(f"now = now{i}")
            body += step_lines(program, self.writer, counters)
            body += [f"r = where(spiked, mark{i}, r)"] if counters == "until" else []
            nothing = self.writer.constant(0.0)
            quiet = {**dict.fromkeys(RECORDS, nothing), "spikes": "False", "u_pre": "new_u"}
            for record in program.records:
                body.append(f"row_out_{record}{i}[j] = {(RECORDS if spikes else quiet)[record]}")
        kept = ("u",) if competes or at_rest else ()
        body += [
            f"{mangled('row', state)}[j] = {mangled('s', state)}"
            for state in program.states
            if state not in kept
        ]
        body += ["row_r[j] = r"] if counters in ("own", "until") else []
        if competes:
            # the potential is the key of a neuron that spiked, and is reset by the next step
            body.append("row__u[j] = new_u")
            body.append("best = larger(chosen(spiked, new_u, lowest), best)")
        body += [f"interleaved({INTERLEAVED})"] if counters != "held" else []
        inner = f"{name}_block" if fetching else name
        lines = [_JIT_MAP if competes else _JIT_ROW, f"def {inner}({', '.join(arguments)}):"]
        lines += ["    use_widest_vectors()", "    rows_lie_apart()"]
        lines += [*(f"    {line}" for line in before), "    for j in range(x0.size):"]
        lines += [f"        {line}" for line in body]
        lines += ["    return best, taint"] if competes else ["    return taint"]
        if not fetching:
            return [*lines, "", ""]
        whole = ", ".join(arguments)
        part = ", ".join(f"part({name}, (), at, to)" if name in rows else name for name in arguments)
        fetch = [
            f"fetch_row(next_{name} + at * {n}, (to - at) * {n})" for name, n in self.bytes_written.items()
        ]
        item = [str(self.item)]
        place = _PLACE_A_ROW_AHEAD if counters == "free" else _PLACE_A_STEP_AHEAD
        items = {"item": item, "place": _filled(place, item=item), "fetch": fetch}
        blocks = _filled(_FETCHING, inner=[inner], whole=[whole], part=[part], **items)
        row_at = ["row_at"] if counters == "free" else []
        ahead = ", ".join([*row_at, "next_at", "ahead", *(f"next_{name}" for name in self.written)])
        lines += ["", "", _JIT_MAP, f"def {name}({whole}, {ahead}):"]
        return [*lines, *(f"    {line}" for line in blocks), "", ""]

    def rows(self, counters: Counters, times: int = 1) -> dict[str, str]:
        """Return what such a function is given as rows, the neurons lo to hi of each, by the arguments' names."""
        program = self.program
        at = ["t"] + [f"t + {i}" for i in range(1, times)]
        rows = {f"x{i}": f"part(x, (({t}) & steps_given, b), lo, hi)" for i, t in enumerate(at)}
        # every second row once more, by another name: held in registers until their own step, the inputs of four
        # vectors would drive others out (measured: 5 % of a step)
        rows |= {f"next{i}": rows[f"x{i}"] for i in range(1, times, 2)}
        rows |= {
            mangled("row", state): f"part({mangled('g', state)}, (b,), lo, hi)" for state in program.states
        }
        counted = {
            "own": "part(g_r, (b,), lo, hi)",
            "until": "part(marks, (), 0, hi - lo)",
            "shared": "part(held_r, (), lo - f * size, hi - f * size)",
        }
        rows |= {"row_r": counted[counters]} if counters in counted else {}
        for i, t in enumerate(at):
            for name in program.records:
                rows[f"row_out_{name}{i}"] = f"part(out_{name}, (({t}) & rows_of_{name}, b), lo, hi)"
        for i, name in enumerate(program.arrays):
            rows[mangled("row_p", name)] = f"part(arrays, ({i},), lo, hi)"
        return rows

    def call(self, name: str, counters: Counters, times: int = 1, fetching: bool = False) -> str:
        # a call of such a function for the neurons lo to hi, whose rows have names where maps compete
        program = self.program
        rows = self.rows(counters, times)
        arguments = [*(rows.values() if program.inhibition is None else rows), *self.scalars]
        if counters == "until":
            arguments += [
                "np.uint8(t - first)",
                "part(byte_periods, (), lo, hi)" if self.varying_period else "byte_periods",
            ]
        arguments += ["lowest"] if counters != "held" and program.inhibition is not None else []
        arguments += ["reset_from"] if program.inhibition is not None else []
        if fetching:
            row_at = f"x_at + (((t & steps_given) * B + b) * N + lo) * {self.item}"
            arguments += [*([row_at] if counters == "free" else []), "next_at", "ahead"]
            arguments += [f"next_{name} + lo * {n}" for name, n in self.bytes_written.items()]
        return f"{name}({', '.join(arguments)})"

    def named_rows(self, counters: Counters) -> list[str]:
        """Return lines that give the rows of the neurons lo to hi the names of such a function's arguments."""
        return [f"{name} = {row}" for name, row in self.rows(counters).items()]

    def places_of(self, output: str) -> tuple[str, str]:
        """Return the names in the table of a recorded array, and of how many steps it has."""
        if output == "winners":
            return "winners", "steps_of_winners"
        if output in self.program.states:
            return mangled("out", output), mangled("steps_of", output)
        return f"out_{output}", f"steps_of_{output}"

    @property
    def bytes_written(self) -> dict[str, int]:
        """Bytes per neuron of what the rows write of themselves."""
        return {name: 1 if name == "spikes" else self.item for name in self.written}

    @property
    def leaves_maps_out(self) -> bool:
        """Whether some maps of a sample may be held, and need no input, while others do."""
        return self.counters == "free" and self.program.inhibition == "feature"

    def varies(self, name: str) -> bool:
        """Whether each neuron has its own value of a constant."""
        return name in self.program.arrays

    def own(self, name: str, lo: str = "lo", hi: str = "hi") -> str:
        """Return a constant of the neurons lo to hi: a number, or a row of their own ones."""
        if not self.varies(name):
            return mangled("p", name)
        return f"part(arrays, ({self.program.arrays.index(name)},), {lo}, {hi})"

    def end_window(self, step: str, out: str) -> str:
        # a call of what turns marks into counters
        periods = "part(periods, (), lo, hi)" if self.varying_period else "periods[0]"
        return f"end_window(part(marks, (), 0, hi - lo), {step} - first, {periods}, part(g_r, (b,), lo, hi), {out})"

    def keep(self) -> list[str]:
        # copy the state of the neurons lo to hi before the first step, which has it in the cache anyway
        first = "" if self.program.inhibition is None else " and t == 0"
        pairs = [(mangled("g", state), mangled("kept", state)) for state in self.program.states]
        pairs += [("g_r", "kept_r")] * (self.counters == "until")
        copied = [f"    copy(part({own}, (b,), lo, hi), part({kept}, (b,), lo, hi))" for own, kept in pairs]
        return [f"if keeps > 0{first}:", *copied]

    def copies(self) -> list[str]:
        # record what stands in the state of the neurons lo to hi
        lines = []
        for state in self.program.states:
            own, out = mangled("g", state), mangled("out", state)
            copied = f"copy(part({own}, (b,), lo, hi), part({out}, (t, b), lo, hi))"
            if state == "u" and self.program.inhibition is not None:
                rows = f"row__u, {self.own('threshold')}, {self.own('v_reset')}"
                copied = f"copy_reset({rows}, part({out}, (t, b), lo, hi))"
            lines += [f"if {out}.shape[0] > 0:", f"    {copied}"]
        if self.program.inhibition is None:
            out = "part(out_refractory, (t, b), lo, hi)"
            copied = f"copy(part(g_r, (b,), lo, hi), {out})"
            if self.counters == "until":
                copied = self.end_window("t + 1", out)
            lines += ["if out_refractory.shape[0] > 0:", f"    {copied}"]
        return lines

    @property
    def table(self) -> dict[str, str | None]:
        """What the table of a launch holds, in order: integers, and addresses of arrays with their dtype and shape."""
        program = self.program
        scalars, arrays = len(program.scalars), len(program.arrays)
        integers = "B N sets periods_given steps steps_of_x progress"
        table: dict[str, str | None] = dict.fromkeys(integers.split())
        table.update(not_finite="np.int64, (1,)", keeps=None)
        states = {mangled("g", state): "real, (B, N)" for state in program.states}
        table.update({mangled("kept", state): "real, (B, N)" for state in program.states})
        table.update(
            states,
            kept_r="np.int32, (B, sets)",
            g_r="np.int32, (B, sets)",
            periods="np.int32, (periods_given,)",
        )
        table.update(
            scalars=f"real, ({scalars},)", arrays=f"real, ({arrays}, N)", x="real, (steps_of_x, B, N)"
        )
        for output, dtype in {**self.written, **self.copied}.items():
            out, steps = self.places_of(output)
            table.update({steps: None, out: f"{dtype}, ({steps}, B, N)"})
        if program.inhibition is None:
            table.update(dict.fromkeys(["tile", "slots", "together"]))
            return {
                **table,
                "byte_periods": "np.uint8, (periods_given,)",
                "marks_of": "np.uint8, (slots, tile)",
            }
        integers = (
            "k most radius H W group row pieces owners slots most_winners most_maps blocks longest fetches"
        )
        table.update(dict.fromkeys([*integers.split(), "pending", "longest_left"]))
        table.update(steps_of_winners=None, winners="np.int32, (steps_of_winners, B, k, 3)")
        table.update(lowest_key="real, (1,)", won="np.int32, (B, most_winners, 3)")
        table.update(dict.fromkeys(["rest_from"] * (self.counters == "free"), "np.int32, (B, sets)"))
        table.update(dict.fromkeys(["step_ahead"] * self.leaves_maps_out))
        table.update(map_keys="real, (B, most_maps)", map_places="np.int32, (B, most_maps)")
        # what a thread has for itself; memory that numba manages would have its references counted at every map
        table.update(front_runners_of="real, (slots, most_winners)", held_of="np.uint8, (slots, longest)")
        table.update(best_of_blocks_of="real, (slots, blocks)", left_of="real, (slots, longest_left)")
        return table

    def head(self) -> list[str]:
        lines, table = [_JIT, "def run(table, me):", "    use_widest_vectors()"], self.table
        lines.append(f"    at = array_at(table, np.int64, ({len(table)},))")
        for i, (name, array) in enumerate(table.items()):
            lines.append(
                f"    {name} = at[{i}]" if array is None else f"    {name} = array_at(at[{i}], {array})"
            )
        lines += ["    x_at = address_of(x)", "    taint = UNTAINTED"]
        # an input that does not change has one row, and an output that nobody asked for has rows for steps together
        rows = {"steps_given": "-1 if steps_of_x == steps else 0"}
        rows |= {
            f"rows_of_{name}": f"-1 if steps_of_{name} == steps else {TOGETHER - 1}"
            for name in self.program.records
        }
        lines += [f"    {name} = {mask}" for name, mask in rows.items()]
        return [*lines, *(f"    {name} = scalars[{i}]" for i, name in enumerate(self.scalars))]

    def free(self) -> list[str]:
        # every neuron for itself: tiles of neurons stay in the cache while all steps stream past
        counters = self.counters
        blocks: dict[str, list[str]] = {"marks": [], "begin_window": [], "end_window": []}
        if counters == "until":
            blocks["marks"] = ["marks = marks_of[me]"]
            blocks["begin_window"] = ["begin_window(part(g_r, (b,), lo, hi), part(marks, (), 0, hi - lo))"]
            blocks["end_window"] = [self.end_window("last", "part(g_r, (b,), lo, hi)")]
        functions = self.row("advance", counters)
        functions += self.row("advance_together", counters, TOGETHER)
        loop = _filled(
            _FREE,
            times=[str(TOGETHER)],
            advance_together=[self.call("advance_together", counters, TOGETHER)],
            advance=[self.call("advance", counters)],
            record=self.copies(),
            keep=self.keep(),
            **blocks,
        )
        return [*functions, *self.head(), *_body(loop)]

    def competing(self) -> list[str]:
        # groups of maps one after the other, then the winners; threads that share a sample ask for each alone
        program, counters = self.program, self.counters
        scope, compact = program.inhibition, program.compact
        assert scope is not None
        functions = self.row("advance", counters, fetching=True)
        names = ["prepare", "tiling", "alike", "rest", "rests", "settle", "returns", "input_ahead", "fetch"]
        names += ["place"]
        blocks: dict[str, list[str]] = {name: [] for name in names}
        item, written = [str(self.item)], self.bytes_written.items()
        blocks["next_rows"] = [
            f"next_{name} = address_of(out_{name}) + ((upcoming & rows_of_{name}) * B + b) * N * {n}"
            for name, n in written
        ]
        blocks["input_ahead"] = _filled(_A_STEP_AHEAD, item=item)
        if counters == "free":
            functions += [*self.row("rest", "held"), *self.row("stay", "held", at_rest=True)]
            blocks["alike"] = _ALIKE.splitlines() if self.leaves_maps_out else []
            fetch = [f"fetch_row(next_{name} + lo * {n}, (hi - lo) * {n})" for name, n in written]
            blocks["rest"] = _filled(
                _REST,
                held=["held and not some" if self.leaves_maps_out else "g_r[b, 0] > t"],
                resting=["resting" if self.leaves_maps_out else "t >= rest_from[b, 0]"],
                rows=self.named_rows("held"),
                keep=self.keep(),
                rest=[f"taint += {self.call('rest', 'held')}"],
                stay=[f"taint += {self.call('stay', 'held')}"],
                record=self.copies(),
                fetch=["if fetches > 0:", *(f"    {line}" for line in fetch)],
            )
            # from the second step that it is held on
            blocks["rests"] = ["rest_from[b, j] = t + 2"]
            # to this piece in the next step, whose input is asked for after its last map's
            blocks["returns"] = ["returns = pieces <= max(owners, 1) or last_map == F"]
            seek = (_SEEK_WANTED if self.leaves_maps_out else _SEEK_NEXT).splitlines()
            # as far ahead as the begin of the row to go on with, unless that is the one behind it
            ahead = f"min({AHEAD}, hi - lo)" if self.leaves_maps_out else str(AHEAD)
            either = {"a_step_ahead": blocks["input_ahead"]}
            either["a_row_ahead"] = _filled(_A_ROW_AHEAD, seek=seek, item=item, ahead=[ahead])
            blocks["input_ahead"] = (
                _filled(_EITHER, **either) if self.leaves_maps_out else either["a_row_ahead"]
            )
        advance = self.call("advance", counters, fetching=True)
        blocks["advance"] = [f"best_of_row, taint_of_row = {advance}"]
        blocks["rows"] = self.named_rows(counters)
        if self.leaves_maps_out:
            functions += self.row("advance_some", "shared")
            some_held = self.call("advance_some", "shared")
            blocks["advance"] = _filled(_ADVANCE_ANY, some=[some_held], all=[advance])
        if counters == "shared" or self.leaves_maps_out:
            blocks["prepare"] = ["held_r = held_of[me]"]
        if counters == "shared":
            blocks["tiling"] = _TILING.splitlines()
        period = f"periods[{'front * size + place' if self.varying_period else '0'}]"
        counters_of_neurons = _COUNTERS_OF_SETS[scope] if compact else _OWN_COUNTERS
        if compact:
            # sets are held until a step: what is not counted down need not go from one core's cache to another's
            period = f"np.int32(t + 1 + {period})"
            ends = ["g_r"] + ["rest_from"] * (counters == "free")
            blocks["settle"] = [
                "if t + 1 == steps:",
                *(f"    remaining({n}[b], steps, {n}[b])" for n in ends),
            ]
        thresholds = [self.own("threshold", "0", "N")]
        if program.exact_order:
            blocks["prune"] = _PRUNE.splitlines()
            blocks["place"] = _filled(_PLACE, threshold=[self.own("threshold")])
            blocks["places"] = _filled(_PLACES, thresholds=thresholds)
        else:
            # what ties with a map's largest potential is known only when the step's largest is
            blocks["prune"] = ["prune = False"]
            blocks["places"] = ["part(map_places, (b,), first_map, last_map)[:] = -1"]
        loop = _filled(
            _COMPETING,
            **blocks,
            record=self.copies(),
            keep=self.keep(),
            reset_from=["LOWEST_KEY" if self.varies("threshold") else "p__threshold"],
            threshold=[self.own("threshold")],
            thresholds=thresholds,
            amplitude=["" if program.exact_order else ", p__spike_amplitude"],
            period=[period],
            inhibited=[_INHIBITED[scope, compact]],
            passes=["2" if self.varying_period else "1"],
            counters=counters_of_neurons.splitlines(),
        )
        return [*functions, *self.head(), *_body(loop)]

    def text(self) -> str:
        """Return the module's text; its function ``run`` advances samples, or tiles of them, by all steps."""
        program = self.program
        body = self.free() if program.inhibition is None else self.competing()
        lines = [line for line in body if not line.startswith("@")]
        helpers = helper_lines(lines, program.dtype, self.writer, _JIT_HELPER)
        return _module(program.label, program.dtype, self.writer, helpers, body)


_ELEMENTWISE = """\
@njit("void(int64, int64, int64)", cache=True, nogil=True, error_model="numpy", _nrt=False)
def run(source, target, size):
    use_widest_vectors()
    x, y = array_at(source, real, (size,)), array_at(target, real, (size,))
    for j in range(size):
        y[j] = {name}(x[j])
        interleaved({vectors})
"""


def elementwise_source(name: str, dtype: str) -> str:
    """Return the text of a module whose function ``run`` takes an elementary function of many numbers."""
    writer = Writer()
    helpers = helper_lines([f"y = {name}(x)"], dtype, writer, _JIT_HELPER)
    loop = _ELEMENTWISE.format(name=name, vectors=INTERLEAVED).splitlines()
    return _module(f"{name}_{dtype}", dtype, writer, helpers, loop)


_RANKS = """\
from spyke_numba.backends.cpu.parts import ranked


@njit("void(int64, int64, int64, int64, int64)", cache=True, nogil=True, error_model="numpy", _nrt=False)
def run(source, target, B, n, given):
    use_widest_vectors()
    x, y = array_at(source, real, (B, n)), array_at(target, real, (B, n))
    order = array_at(given, real, (1 + B,))
    amplitude = order[0]
    for b in range(B):
        row, out = part(x, (b,), 0, n), part(y, (b,), 0, n)
        term = amplitude * order[1 + b]
        for j in range(n):
            out[j] = chosen(row[j] > LOWEST_KEY, ranked(row[j], amplitude, term), LOWEST_KEY)
"""


def ranks_source(dtype: str) -> str:
    """Return the text of a module whose function ``run`` turns potentials (B, n) into what SpykeTorch orders them by.

    It is given the addresses of the potentials, -inf for none, and of the results, B, n, and the address of the spikes'
    amplitude and each sample's largest potential.
    """
    return _module(f"ranks_{dtype}", dtype, Writer(), [], _RANKS.splitlines())


_EVENTS = """\
@njit("void(int64, int64, int64, int64, int64, int64, int64)", cache=True, nogil=True, _nrt=False)
def run(source, T, B, N, first_step, target, n):
    spikes, events = array_at(source, np.uint8, (T, B, N)), array_at(target, np.int64, (n, 3))
    at = 0
    for t in range(T):
        for b in range(B):
            row = part(spikes, (t, b), 0, N)
            for block in range(0, N, BITS):
                bits = bits_of(row, block)
                while bits != NO_BITS:
                    events[at, 0], events[at, 1], events[at, 2] = t + first_step, b, block + lowest_bit(bits)
                    bits &= bits - ONE_BIT
                    at += 1
"""


def events_source() -> str:
    """Return the text of a module whose function ``run`` lists n spikes (T, B, N) as rows (step, sample, neuron)."""
    # it holds no real numbers of whatever type
    return _module("events", "float32", Writer(), [], _EVENTS.splitlines())


def _module(label: str, dtype: str, writer: Writer, helpers: list[str], body: list[str]) -> str:
    constants = [f"{name} = real({_literal(value)})" for value, name in writer.constants.items()]
    return "\n".join([_HEADER.format(label=label, dtype=dtype), *constants, "", "", *helpers, "", *body, ""])


def _literal(value: str) -> str:
    return f'"{value}"' if value in ("inf", "-inf", "nan") else value
