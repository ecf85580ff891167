"""How the last of several programs that make parts of one result learns that all parts are there.

Each program stores its part in scratch memory, arrives, and goes; the last one reads all parts and
joins them in a fixed order, so that the result does not depend on who came last.
"""

import triton
import triton.language as tl


@triton.jit
def arrives_last(ARRIVALS, place, num):
    """Return whether this is the last of `num` programs to arrive at a counter.

    What every program stored before is then visible to the last one:

    - the barrier puts the stores of all threads before the one thread that counts, and "acq_rel"
      puts them before the count for the whole device and the count before what is loaded after it;
    - the count reaches the other threads through shared memory behind another barrier, which Triton
      adds to an atomic operation whose result is used;
    - parts are written once and by others, so a line of them in this multiprocessor's own cache
      (L1), which no other one updates, could only be stale. The acquire empties that cache;
      callers store and load parts with `cache_modifier=".cg"`, which passes it by in any case.

    The last one clears the counter: nobody else of this launch looks at it again, and the next
    launch, or replay of a graph, finds it at zero.

    Args:
        ARRIVALS: counters, int32.
        place: which counter.
        num: how many programs arrive there, at least 1; the same number for all of them.
    """
    tl.debug_barrier()
    num_earlier = tl.atomic_add(ARRIVALS + place, 1, sem="acq_rel")
    is_last = num_earlier == num - 1
    tl.store(ARRIVALS + place, 0, mask=is_last)
    return is_last
