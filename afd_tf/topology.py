"""Who learns from whom. No TensorFlow here: only indices."""

from afd_tf.naming import lookup


def cycle(count):
    """Knowledge flows 1 -> 2 -> ... -> K -> 1: the source of network k is k-1."""
    return tuple(((k - 1) % count,) for k in range(count))


def all_pairs(count):
    """Every network learns from every other one."""
    return tuple(tuple(j for j in range(count) if j != k) for k in range(count))


TOPOLOGIES = {"cycle": cycle, "all_pairs": all_pairs}


def sources(topology, count):
    """List the source networks of each network.

    Args:
        topology: str, one of `TOPOLOGIES`.
        count: int >= 2, number of networks.

    Returns:
        Tuple of `count` tuples of indices: element k holds the networks that network k
        learns from.

    Raises:
        ValueError: if `topology` is unknown (the nearest name is suggested).
    """
    return lookup("topology", topology, TOPOLOGIES)(count)
