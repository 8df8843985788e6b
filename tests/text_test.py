import pytest

from afd_tf import text


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.4, "0s"), (59.4, "59s"), (60, "1m 00s"), (3599, "59m 59s"), (7500, "2h 05m")],
)
def test_durations_are_for_people(seconds, expected):
    assert text.duration(seconds) == expected
