"""Topologies: which networks each network learns from, as indices."""

from afd_tf.errors import lookup


def cycle(count):
    """Knowledge flows 1 -> 2 -> ... -> K -> 1: network k learns from network k-1."""
    return tuple(((k - 1) % count,) for k in range(count))


def all_pairs(count):
    """Every network learns from every other one."""
    return tuple(tuple(j for j in range(count) if j != k) for k in range(count))


def from_source(count):
    """Every network learns from one more alone, of index `count`: it learns nothing."""
    return ((count,),) * count


TOPOLOGIES = {"cycle": cycle, "all_pairs": all_pairs, "from_source": from_source}


def peers(topology, count):
    """List the networks that each network learns from.

    Args:
        topology: str, one of `TOPOLOGIES`.
        count: int, number of networks that learn.

    Returns:
        Tuple of `count` tuples of indices. Index `count` is a source that learns
        nothing itself: a frozen network, or a gate.

    Raises:
        ValueError: if `topology` is unknown (the nearest name is suggested).
    """
    return lookup("topology", topology, TOPOLOGIES)(count)
