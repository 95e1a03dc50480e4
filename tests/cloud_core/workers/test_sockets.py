"""The ports that workers share."""

from __future__ import annotations

import socket
from collections import Counter

import pytest

from cloud_core.config import Config, Http, Mqtt, Tls
from cloud_core.transports.listener import ListenFailed
from cloud_core.workers.sockets import Port, open_shared
from cloud_core.workers.supervisor import ports_of, with_ports

LOOPBACK = "127.0.0.1"


def test_tcp_is_held_without_listening_and_udp_is_opened_for_each_worker() -> None:
    """The supervisor takes no connection itself."""
    opened = open_shared([Port("http", LOOPBACK, 0), Port("coap", LOOPBACK, 0)], 3)
    try:
        assert opened.numbers["http"] > 0 and opened.numbers["coap"] > 0
        assert {one.getsockname()[1] for one in opened.udp["coap"]} == {opened.numbers["coap"]}
        assert [opened.of_worker(index)["coap"] for index in range(3)] == opened.udp["coap"]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((LOOPBACK, opened.numbers["http"]), timeout=5)
    finally:
        opened.close()


def test_a_peer_keeps_its_socket() -> None:
    """All datagrams of one address and port come to the same worker, and many peers come to each."""
    opened = open_shared([Port("coap", LOOPBACK, 0)], 2)
    peers = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(40)]
    try:
        heard: Counter[tuple[int, int]] = Counter()
        for _ in range(3):
            for peer in peers:
                peer.sendto(b"x", (LOOPBACK, opened.numbers["coap"]))
        for index, one in enumerate(opened.udp["coap"]):
            one.setblocking(True)
            one.settimeout(0.5)
            try:
                while True:
                    heard[index, one.recvfrom(10)[1][1]] += 1
            except TimeoutError:
                pass
        assert set(heard.values()) == {3} and len(heard) == len(peers)
        assert min(Counter(index for index, _ in heard).values()) >= 5
    finally:
        opened.close()
        for peer in peers:
            peer.close()


@pytest.mark.parametrize(("name", "kind"), [("http", socket.SOCK_STREAM), ("coap", socket.SOCK_DGRAM)])
def test_a_port_of_another_program_is_not_shared_with_it(name: str, kind: socket.SocketKind) -> None:
    """Also where the other one has allowed it."""
    with socket.socket(socket.AF_INET, kind) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind((LOOPBACK, 0))
        if kind is socket.SOCK_STREAM:
            other.listen()
        port = other.getsockname()[1]
        with pytest.raises((ListenFailed, OSError), match=f"The {name} port {port} .*is taken.*--{name}-port"):
            open_shared([Port("mqtt", LOOPBACK, 0), Port(name, LOOPBACK, port)], 2)


def test_the_configuration_says_which_ports_there_are() -> None:
    """Those for TLS where it is configured; addresses default to HTTP's."""
    plain = Config(http=Http(bind="0.0.0.0", port=1), mqtt=Mqtt(bind=LOOPBACK, port=2))
    assert [(one.name, one.bind, one.number) for one in ports_of(plain)] == [
        ("http", "0.0.0.0", 1), ("mqtt", LOOPBACK, 2), ("coap", "0.0.0.0", 5683)
    ]  # fmt: skip
    secure = Config(tls=Tls(development=True))
    assert [one.name for one in ports_of(secure)] == ["http", "mqtt", "coap", "https", "mqtts", "coaps"]


def test_workers_are_told_the_numbers_that_were_opened() -> None:
    """Whatever 0 has become."""
    told = with_ports(Config(http=Http(port=0)), {"http": 1, "mqtt": 2, "coap": 3, "coaps": 4})
    assert (told.http.port, told.mqtt.port, told.coap.port, told.coap.dtls_port) == (1, 2, 3, 4)
    assert told.http.tls_port == Config().http.tls_port
