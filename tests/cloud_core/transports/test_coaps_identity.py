"""Who asks over DTLS, and what belongs to which session: the fast path behind a DTLS server, in memory."""

from __future__ import annotations

from typing import Any

import pytest
from aiocoap.numbers.codes import Code
from aiocoap.numbers.types import Type
from OpenSSL import SSL

from cloud_core.core.downlinks import Ending
from cloud_core.model import Identity, Peer, Role, Transport
from cloud_core.transports.tls import ServerTls
from shared.errors import UntrustedCertificate
from shared.messages import AttributesChange, RpcCommand
from tests.support.coap import PEER, PROVISION, request
from tests.support.dtls import CoapsServer, DtlsClient, client_context, peer_at, server_tls
from tests.support.parts import RecordingDelivery
from tests.support.pki import Leaf, Pki

TELEMETRY = request("api/v1/telemetry", b'{"t":1}')


class Fleet:
    """Two devices with certificates of one CA; 11 and 12 are their numbers."""

    def __init__(self) -> None:
        ca = Pki().root().intermediate("Factory")
        self.leaves: dict[int, Leaf] = {number: ca.leaf(f"device {number}") for number in (11, 12)}
        self.contexts: dict[int, SSL.Context] = {number: client_context(leaf) for number, leaf in self.leaves.items()}

    def identity(self, number: int) -> Identity:
        return Identity(Role.DEVICE, device_id=number, device_name=f"device {number}")


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    return Fleet()


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ServerTls:
    return server_tls(tmp_path_factory.mktemp("server"))


@pytest.fixture
def it(tls: ServerTls, fleet: Fleet) -> CoapsServer:
    """Both devices are known."""
    server = CoapsServer(tls)
    server.api.certificates.identities = {leaf.der: fleet.identity(one) for one, leaf in fleet.leaves.items()}
    return server


def stranger(it: CoapsServer, fleet: Fleet, outcome: Any) -> DtlsClient:
    """Device 11, which has not logged in before; `outcome` is what the core says of it."""
    it.api.certificates.identities.clear()
    it.api.certificates.logins[fleet.leaves[11].der] = outcome
    return it.connect(fleet.contexts[11])


# -- who asks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["telemetry", "attributes", "rpc/17", "claim", "rpc"])
def test_a_path_without_token_goes_by_the_certificate(it: CoapsServer, fleet: Fleet, path: str) -> None:
    """Whatever the device posts (X4)."""
    client = it.connect(fleet.contexts[11])
    body = b'{"method":"m"}' if path == "rpc" else b"{}"
    assert not it.is_identified()
    answer = it.ask(client, request(f"api/v1/{path}", body))
    assert answer.code in (Code.CREATED, Code.CONTENT) and it.is_identified()
    assert it.api.present == [("seen", 11)] and not it.api.certificates.asked


def test_telemetry_is_the_devices(it: CoapsServer, fleet: Fleet) -> None:
    """Of whose certificate it is (X4)."""
    assert it.ask(it.connect(fleet.contexts[12]), TELEMETRY).code == Code.CREATED
    assert it.api.telemetry == [(12, [(1_000, {"t": 1})])]


def test_a_path_with_token_goes_by_the_token(it: CoapsServer, fleet: Fleet) -> None:
    """Whatever certificate was shown; a wrong token is no reason to look at that."""
    client = it.connect(fleet.contexts[11])
    assert it.ask(client, request("api/v1/tok/telemetry", b'{"t":1}')).code == Code.CREATED
    assert it.api.telemetry[0][0] == 1
    for number, path in enumerate(("api/v1/nobody/telemetry", "api/v1//telemetry"), start=2):
        answer = it.ask(client, request(path, b'{"t":1}', mid=number))
        assert (answer.code, answer.payload) == (Code.UNAUTHORIZED, b"")
    assert len(it.api.telemetry) == 1 and not it.api.certificates.asked


def test_a_first_login_shows_the_whole_chain(it: CoapsServer, fleet: Fleet) -> None:
    """To `authenticate`, with where it comes from; the request then goes on."""
    client = stranger(it, fleet, fleet.identity(11))
    assert it.ask(client, TELEMETRY).code == Code.CREATED
    assert it.api.certificates.asked == [(fleet.leaves[11].presented, Peer(Transport.COAP, "192.0.2.7"))]


def test_an_unknown_certificate_needs_a_token(it: CoapsServer, fleet: Fleet) -> None:
    """4.01 that says so; with a token in the path the same session serves."""
    client = it.connect(client_context(Pki().self_signed("nobody")))
    answer = it.ask(client, TELEMETRY)
    assert answer.code == Code.UNAUTHORIZED and b"put an access token into the path" in answer.payload
    assert it.ask(client, request("api/v1/tok/telemetry", b'{"t":1}', mid=2)).code == Code.CREATED


def test_an_untrusted_certificate_is_told_why(it: CoapsServer, fleet: Fleet) -> None:
    """4.01 with the reason."""
    client = stranger(it, fleet, UntrustedCertificate("The certificate device 11 has expired; renew it."))
    answer = it.ask(client, TELEMETRY)
    assert answer.code == Code.UNAUTHORIZED and b"has expired; renew it" in answer.payload


def test_no_certificate_and_no_token_is_nobody(it: CoapsServer) -> None:
    """4.01, as without DTLS."""
    assert it.ask(it.connect(client_context()), TELEMETRY).code == Code.UNAUTHORIZED


def test_provisioning_never_uses_the_certificate(it: CoapsServer, fleet: Fleet) -> None:
    """The request's key and secret decide."""
    answer = it.ask(it.connect(fleet.contexts[11]), request("api/v1/provision", PROVISION))
    assert answer.code == Code.CREATED and not it.api.certificates.asked


def test_a_resumed_session_goes_by_what_the_first_showed(it: CoapsServer, fleet: Fleet) -> None:
    """With the intermediate certificates that lead to a CA."""
    first = it.connect(fleet.contexts[11])
    client = it.connect(fleet.contexts[11], peer_at(1), session=first.connection.get_session())
    it.api.certificates.identities.clear()
    it.api.certificates.logins[fleet.leaves[11].der] = fleet.identity(11)
    assert it.ask(client, TELEMETRY, peer_at(1)).code == Code.CREATED
    asked = it.api.certificates.asked[0][0]
    assert (asked.leaf, len(asked.others)) == (fleet.leaves[11].der, 1)


# -- what belongs to which session ----------------------------------------------------------------


def test_two_devices_share_a_port_one_after_the_other(it: CoapsServer, fleet: Fleet) -> None:
    """The same message id from the same port is each device's own request (X4)."""
    for number in (11, 12):
        assert it.ask(it.connect(fleet.contexts[number]), TELEMETRY).code == Code.CREATED
    assert [device for device, _samples in it.api.telemetry] == [11, 12]


def test_a_duplicate_within_a_session_is_answered_alike(it: CoapsServer, fleet: Fleet) -> None:
    """And executed once."""
    client = it.connect(fleet.contexts[11])
    assert it.ask(client, TELEMETRY).code == it.ask(client, TELEMETRY).code == Code.CREATED
    assert len(client.messages) == 2 and client.messages[0] == client.messages[1]
    assert len(it.api.telemetry) == 1


def test_a_download_is_its_sessions(it: CoapsServer, fleet: Fleet) -> None:
    """Later blocks of an answer are there for the session that asked, not for the next one on the port (X4)."""
    it.api.client = {"secret": "x" * 2_000}
    first = it.ask(it.connect(fleet.contexts[11]), request("api/v1/attributes", b"", code=Code.GET))
    assert first.opt.block2.more
    later = request("api/v1/attributes", b"", code=Code.GET, mid=2, block2=(1, False, 6))
    answer = it.ask(it.connect(fleet.contexts[12]), later)
    assert answer.code == Code.REQUEST_ENTITY_INCOMPLETE


def test_an_observation_by_certificate(it: CoapsServer, fleet: Fleet) -> None:
    """Current state, changes through the session, and the end together with it."""
    it.api.shared = {"a": 1}
    client = it.connect(fleet.contexts[11])
    first = it.ask(client, request("api/v1/attributes", b"", code=Code.GET, mtype=Type.NON, observe=0))
    assert (first.code, first.payload, first.opt.observe) == (Code.CONTENT, b'{"a":1}', 0)
    it.api.downlinks.attributes_changed(11, AttributesChange(values={"a": 2}))
    it.exchange(client)
    assert b'{"a":2}' in client.messages[-1]
    client.connection.shutdown()
    it.exchange(client)
    assert len(it.path.observations) == 0 and not it.api.downlinks.is_open(11)
    assert it.api.present[-1] == ("disconnected", 11) and not it.path.observations._of_session


def test_a_session_that_ends_gives_its_command_back(it: CoapsServer, fleet: Fleet) -> None:
    """A confirmable command that was not acknowledged has failed when the device reboots."""
    client = it.connect(fleet.contexts[11])
    it.ask(client, request("api/v1/rpc", b"", code=Code.GET, observe=0))
    delivery, downlink = RecordingDelivery(), it.api.downlinks.for_commands(11)
    assert downlink is not None
    downlink.command(RpcCommand(number=5, method="m", params=[]), delivery)
    assert not delivery.outcomes
    it.connect(fleet.contexts[11])
    assert delivery.outcomes == ["failed"] and len(it.path.observations) == 0


def test_another_device_on_the_port_does_not_inherit_the_observation(it: CoapsServer, fleet: Fleet) -> None:
    """Nor is anything of the former device sent to it (X4)."""
    it.ask(it.connect(fleet.contexts[11]), request("api/v1/attributes", b"", code=Code.GET, observe=0))
    client = it.connect(fleet.contexts[12])
    it.api.downlinks.attributes_changed(11, AttributesChange(values={"a": 2}))
    it.loop.advance(120)
    it.exchange(client)
    assert not client.messages


def test_an_observer_is_looked_up_again_by_its_certificate(it: CoapsServer, fleet: Fleet) -> None:
    """When its device was changed; one whose certificate opens nothing any more is told so."""
    client = it.connect(fleet.contexts[11])
    it.ask(client, request("api/v1/attributes", b"", code=Code.GET, mtype=Type.NON, observe=0))
    logins = it.api.certificates.logins
    logins[fleet.leaves[11].der] = fleet.identity(11)
    it.api.downlinks.end(11, Ending.DEVICE_CHANGED)
    assert it.api.certificates.asked == [(fleet.leaves[11].presented, Peer(Transport.COAP, "192.0.2.7"))]
    assert it.api.downlinks.is_open(11)
    logins.clear()
    it.api.downlinks.end(11, Ending.DEVICE_CHANGED)
    it.exchange(client)
    assert client.messages[-1][1] == Code.UNAUTHORIZED and len(it.path.observations) == 0


def test_no_observation_of_a_session_that_has_ended(it: CoapsServer, fleet: Fleet) -> None:
    """The login took longer than the session."""
    client = stranger(it, fleet, fleet.identity(11))
    held = it.api.certificates.held = []
    client.send(request("api/v1/rpc", b"", code=Code.GET, observe=0))
    it.exchange(client)
    client.connection.shutdown()
    it.exchange(client)
    held.pop()()
    assert len(it.path.observations) == 0 and not it.api.downlinks.is_open(11)


def test_an_answer_to_a_session_that_has_ended_is_dropped(it: CoapsServer, fleet: Fleet) -> None:
    """Above all it does not go to the next session of the port."""
    it.api.is_holding = True
    former = it.connect(fleet.contexts[11])
    former.send(TELEMETRY)
    it.exchange(former)
    latter = it.connect(fleet.contexts[12])
    it.api.release()
    it.exchange(latter)
    assert not latter.messages and it.path.in_work == 0
    assert it.server.session_count == 1 and it.ended[0][:2] == PEER[:2]
