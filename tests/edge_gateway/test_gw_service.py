"""The parts that the composition root adds itself."""

from __future__ import annotations

from edge_gateway.core.presence import State
from edge_gateway.service import STATE_TEXTS


def test_every_state_of_a_sub_device_has_words() -> None:
    """For people in front of `edge-gateway devices`."""
    assert set(STATE_TEXTS) == set(State)
