"""Who learns from whom."""

import pytest

from afd_tf.distillation import topology


def test_in_a_cycle_each_network_learns_from_the_one_before():
    assert topology.peers("cycle", 2) == ((1,), (0,))
    assert topology.peers("cycle", 3) == ((2,), (0,), (1,))


def test_in_all_pairs_each_network_learns_from_all_others():
    assert topology.peers("all_pairs", 3) == ((1, 2), (0, 2), (0, 1))


def test_unknown_topology_suggests_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'cycle'"):
        topology.peers("cycel", 2)
