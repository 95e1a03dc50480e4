"""Where devices reach the core, and the pure parts of forms and commands; that the commands work is shown elsewhere."""

from __future__ import annotations

import pytest

from cloud_core.transports.endpoints import Endpoints, Listening
from cloud_core.transports.http.ui import profile_forms, snippets
from cloud_core.transports.http.ui.profile_certificates import authority_of, try_pattern
from cloud_core.transports.http.ui.snippets import Door, places_of
from shared.errors import InvalidArgument


def listening(bind: str = "0.0.0.0", public_url: str = "", **ports: int) -> Endpoints:
    return Endpoints(public_url, {scheme: Listening(bind, port) for scheme, port in ports.items()})


ALL = listening(http=8080, https=8443, mqtt=1883, mqtts=8883, coap=5683, coaps=5684)


def test_the_browsers_address_is_the_devices() -> None:
    """HTTP as the browser has it, the other ports beside it."""
    place = places_of("core.lan:9000", False, ALL)[False]
    assert (place.host, place.http, place.mqtt, place.coap) == ("core.lan", "http://core.lan:9000", 1883, 5683)
    secure = places_of("core.lan:9000", False, ALL)[True]
    assert (secure.http, secure.mqtt, secure.coap) == ("https://core.lan:8443", 8883, 5684)
    assert secure.is_ca_needed and not place.is_ca_needed


def test_behind_a_proxy_with_tls_nobody_needs_a_ca_for_http() -> None:
    """The proxy's certificate is not the core's."""
    places = places_of("core.example", True, listening(http=8080, mqtt=1883))
    assert places[True].http == "https://core.example" and not places[True].is_ca_needed
    assert places[True].mqtt is None and places[False].mqtt == 1883
    direct = places_of("core.lan:8443", True, ALL)
    assert direct[True].http == "https://core.lan:8443" and direct[True].is_ca_needed
    assert direct[False].http == "http://core.lan:8080"


def test_ipv6_addresses_have_brackets_in_urls_alone() -> None:
    """`-h` of mosquitto takes them without."""
    place = places_of("[2001:db8::1]:8080", False, ALL)[False]
    assert (place.host, place.http, place.shown_coap_host) == (
        "2001:db8::1", "http://[2001:db8::1]:8080", "[2001:db8::1]",
    )  # fmt: skip
    assert places_of("[::1]:8080", False, ALL)[True].http == "https://[::1]:8443"
    assert "coap://[2001:db8::1]:5683/" in snippets.with_key("coap", place, Door())[0].text


@pytest.mark.parametrize("host", ["", "$(reboot)", "a b", "a;b", "a'b", "a/b", "[zz]", "[::1", "a" * 300, "h:99999999"])
def test_a_strange_host_becomes_localhost(host: str) -> None:
    """Nothing of it gets into a command."""
    assert places_of(host, False, ALL)[False].http in ("http://localhost", "http://localhost:8080")


@pytest.mark.parametrize("public_url", ["http://core.example/$(reboot)", "http://a b", "core.example", "http://[::1"])
def test_a_public_url_that_no_command_can_hold_is_left_out(public_url: str) -> None:
    """The browser's address is taken."""
    assert places_of("h:1", False, listening(public_url=public_url, http=8080))[False].http == "http://h:1"


def test_localhost_is_an_address_over_udp() -> None:
    """Where CoAP listens on IPv4 alone, ::1 would not answer, and nobody would say so."""
    place = places_of("localhost:8080", False, listening("127.0.0.1", http=8080, coap=5683))[False]
    assert (place.host, place.coap_host) == ("localhost", "127.0.0.1")
    elsewhere = places_of("core.lan:8080", False, listening("127.0.0.1", http=8080, coap=5683))[False]
    assert elsewhere.coap_host == "core.lan"


def test_loopback_is_known() -> None:
    """By address or name."""
    found = [Listening(bind, 1).is_loopback for bind in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "", "core.lan")]
    assert found == [True, True, True, False, False, False]


def test_values_in_programs_are_not_looked_into() -> None:
    """A key that looks like one of the program's places stays as it is, quoted."""
    place = places_of("h:1", False, ALL)[False]
    door = Door(key='@topic@"', secret="\\", name="ü\n")
    (program,) = snippets.with_key("python-mqtt", place, door)
    compile(program.text, "program", "exec")
    assert '"@topic@\\""' in program.text
    (program,) = snippets.with_key("python-http", place, door)
    compile(program.text, "program", "exec")


@pytest.mark.parametrize("way", [name for name, _ in snippets.WAYS])
def test_what_is_not_open_has_no_commands(way: str) -> None:
    """Neither with a key nor with a certificate."""
    place = places_of("h", False, listening(http=1))[False]
    closed = snippets.Place(
        host="h", http="", mqtt=None, coap=None, coap_host="h", is_secure=True, is_ca_needed=True
    )  # fmt: skip
    assert snippets.with_key(way, closed, Door()) == []
    assert bool(snippets.with_key(way, place, Door())) is (way in ("curl", "python-http"))
    if way in dict(snippets.CHAIN_WAYS):
        assert snippets.with_certificate(way, closed, Door()) == []


@pytest.mark.parametrize(
    ("telemetry_filter", "is_protobuf", "topic"),
    [
        ("v1/devices/me/telemetry", False, "v1/devices/me/telemetry"), ("plant/+/data", False, "plant/me/data"),
        ("plant/#", False, "plant/me"), ("plant/#", True, "v2/t/j"),
    ],
)  # fmt: skip
def test_a_topic_for_json_telemetry(telemetry_filter: str, is_protobuf: bool, topic: str) -> None:
    """One that the profile's filter takes."""
    assert snippets.topic_of(telemetry_filter, is_protobuf) == topic


def test_the_last_day_counts_to_its_end() -> None:
    """In UTC; and limits are there when any of them is."""
    values = profile_forms.start_values()
    assert not profile_forms.wants_key(values)
    values |= {"until": "1970-01-01"}
    assert profile_forms.wants_key(values) and profile_forms.key_rules(values).valid_until_ms == 86_400_000
    assert not profile_forms.wants_key(values | {"strategy": profile_forms.CHAIN})
    with pytest.raises(InvalidArgument, match="date"):
        profile_forms.key_rules(values | {"until": "tomorrow"})


def test_a_name_rule_is_tried_as_devices_meet_it() -> None:
    """Group 1 of the pattern; patterns that explode are stopped."""
    assert try_pattern(r"SN-(\d+)", "SN-7") == (True, "7")
    for pattern, name in ((r"SN-(\d+)", "X"), (r"(x+x+)+y", "x" * 40), ("(", "x"), ("x", "x"), ("(.*)", "<b>")):
        is_in, why = try_pattern(pattern, name)
        assert not is_in and why and "certificateRegExPattern" not in why


def test_what_is_no_certificate_has_no_name() -> None:
    """The form's own check says what is wrong with it."""
    assert authority_of("nonsense") is None and authority_of("") is None
