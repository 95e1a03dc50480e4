"""Connections in every state, and what they send and report."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from shared.mqtt.codec import Decoder, encode
from shared.mqtt.connection import Delivered, Limits, ServerConnection
from shared.mqtt.errors import RemoteProtocolError
from shared.mqtt.legality import State
from shared.mqtt.packets import (
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Properties,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
    Unsubscribe,
)

VERSIONS = [3, 4, 5]
LIMITS = Limits()
SAMPLES: dict[type[Packet], Packet] = {
    Connect: Connect("d", 5),
    Connack: Connack(),
    Publish: Publish("a", b""),
    Puback: Puback(1),
    Pubrec: Pubrec(1),
    Pubrel: Pubrel(1),
    Pubcomp: Pubcomp(1),
    Subscribe: Subscribe(1, [Subscription("a")]),
    Suback: Suback(1, [0]),
    Unsubscribe: Unsubscribe(1, ["a"]),
    Unsuback: Unsuback(1, [0]),
    Pingreq: Pingreq(),
    Pingresp: Pingresp(),
    Disconnect: Disconnect(),
    Auth: Auth(0x18),
}


def connection_in(state: State, version: int = 5, limits: Limits = LIMITS) -> ServerConnection:
    """A connection that has come to `state`, with nothing left to send."""
    connection = ServerConnection(limits)
    if state is not State.AWAITING_CONNECT:
        connection.receive_data(encode(Connect("d", version)))
    if state is State.ACTIVE:
        connection.accept()
    if state is State.CLOSED:
        connection.disconnect()
    assert connection.state is state
    connection.data_to_send()
    return connection


def connected(version: int, limits: Limits = LIMITS, properties: Properties | None = None) -> ServerConnection:
    """An accepted client, with nothing left to send."""
    connection = ServerConnection(limits)
    connection.receive_data(encode(Connect("d", version, properties=properties)))
    connection.accept()
    connection.data_to_send()
    return connection


def sent(connection: ServerConnection) -> list[Packet]:
    """The packets that wait to be sent, as the client would read them."""
    return Decoder(1_000_000, version=connection.version or 4).feed(connection.data_to_send())


def receive(connection: ServerConnection, *packets: Packet) -> list[Delivered]:
    """What the caller gets when the client sends `packets` in one chunk."""
    return connection.receive_data(b"".join(encode(packet, connection.version) for packet in packets))


def violation_of(call: Callable[[], object]) -> RemoteProtocolError:
    """The violation that `call` must report."""
    with pytest.raises(RemoteProtocolError) as caught:
        call()
    return caught.value


class Told:
    """Records what `on_settled` says of which message."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[int, bool]] = []

    def of(self, number: int) -> Callable[[bool], None]:
        return lambda is_acknowledged: self.outcomes.append((number, is_acknowledged))
