"""Manifests of imports and labels over REST: shown once, to those who may, as fast as they read."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID, uuid4

import pytest

from cloud_core.core.bulk import manifest, manifests
from cloud_core.core.labels import labels
from cloud_core.core.people.logins import Operator
from cloud_core.model import DEFAULT_TENANT, UserRole
from tests.cloud_core.transports.test_bulk_rest import ended, send
from tests.support.labels import codes_of, sizes_mm, texts_of
from tests.support.rest import Rest, id_of, without_threads
from tests.support.stores import TENANT, StoreUnderTest

ROWS = 20
FILE = "name,type,label,access_token\nSN-1,sensor,Насос,token-1\nSN-2,sensor,,token-2\n"
HEAD = (
    b"name,id,type,credentials_type,access_token,mqtt_client_id,mqtt_username,mqtt_password,fingerprint,common_name\r\n"
)


@pytest.fixture
def rest(sqlite_store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> Rest:
    without_threads(monkeypatch)
    sqlite_store.add_profile("sensor")
    return Rest(sqlite_store)


@pytest.fixture
def path(rest: Rest) -> str:
    return f"/api/imports/{ended(rest, send(rest, '/api/imports', FILE)[1])['id']}"


@pytest.fixture
def long(rest: Rest) -> str:
    """Of an import that is read in many pieces."""
    file = "name\n" + "".join(f"D-{number}\n" for number in range(ROWS))
    return f"/api/imports/{ended(rest, send(rest, '/api/imports', file)[1])['id']}"


def pause(rest: Rest, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asks for the manifest and reads no more than its beginning."""
    monkeypatch.setattr(manifests, "ROWS_AT_ONCE", 1)
    begin(rest, f"{path}/manifest")
    while not rest.transport.value():
        rest.api.store.survey(lambda tx: None)
    rest.transport.protocol.pauseProducing()
    for _ in range(3):
        rest.settle()


def begin(rest: Rest, path: str, method: str = "POST", by: str | None = None) -> None:
    rest.send(f"{method} {path} HTTP/1.1\r\nHost: h\r\n{rest.headers(by)}Content-Length: 0\r\n\r\n".encode())


def answer(rest: Rest) -> tuple[int, dict[str, str], bytes]:
    """As far as it has come: status, headers and body, put together where it comes in chunks."""
    for _ in range(3):
        rest.settle()
    head, _, body = rest.transport.value().partition(b"\r\n\r\n")
    rest.transport.clear()
    lines = head.decode().split("\r\n")
    headers = {line.split(":", 1)[0].lower(): line.split(":", 1)[1].strip() for line in lines[1:]}
    if headers.get("transfer-encoding") == "chunked":
        body = joined(body)
    return int(lines[0].split()[1]), headers, body


def joined(chunks: bytes) -> bytes:
    body = b""
    while chunks:
        size, _, rest = chunks.partition(b"\r\n")
        body += rest[: int(size, 16)]
        chunks = rest[int(size, 16) + 2 :]
    return body


def is_whole(chunked: bytes) -> bool:
    return chunked.endswith(b"\r\n0\r\n\r\n")


def asked(rest: Rest, path: str, method: str = "POST", by: str | None = None) -> tuple[int, dict[str, str], bytes]:
    begin(rest, path, method, by)
    return answer(rest)


def message(rest: Rest, path: str, method: str = "POST", by: str | None = None) -> tuple[int, str]:
    status, _, body = asked(rest, path, method, by)
    return status, json.loads(body)["message"]


def token_of(role: UserRole, name: str = "") -> str:
    operator = Operator(name or f"{role.lower()}@test", "TENANT_ADMIN", TENANT, DEFAULT_TENANT, uuid4(), role=role)
    return Rest.token_of(operator)


# -- the manifest ---------------------------------------------------------------------------------


def test_the_manifest_is_shown_once(rest: Rest, path: str) -> None:
    """The second ask is told who took it and when; whoever may release it lets it be taken again."""
    assert rest.call("GET", f"{path}/manifest")[1]["taken"] is False
    status, headers, body = asked(rest, f"{path}/manifest", by=token_of(UserRole.OPERATOR, "ann@factory"))
    assert (status, headers["content-type"], headers["cache-control"]) == (200, "text/csv; charset=utf-8", "no-store")
    lines = body.split(b"\r\n")
    uuid = id_of(rest.call("GET", "/api/tenant/devices?deviceName=SN-1")[1])
    assert (lines[0] + b"\r\n", lines[1]) == (HEAD, f"SN-1,{uuid},sensor,ACCESS_TOKEN,token-1,,,,,".encode())
    state = rest.call("GET", f"{path}/manifest")[1]
    assert (state["taken"], state["takenBy"], state["takenAs"], state["devices"]) == (
        True,
        "ann@factory",
        "manifest",
        2,
    )
    status, text = message(rest, f"{path}/manifest")
    assert (status, "taken by ann@factory at " in text, f"POST {path}/manifest/release" in text) == (400, True, True)
    assert rest.call("POST", f"{path}/manifest/release", {})[1]["taken"] is False
    status, headers, body = asked(rest, f"{path}/manifest?format=ndjson")
    assert (status, headers["content-type"]) == (200, "application/x-ndjson")
    assert [json.loads(line)["access_token"] for line in body.splitlines()] == ["token-1", "token-2"]


def test_a_download_that_breaks_has_taken_nothing(rest: Rest, long: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much of it was sent: it can be asked for again at once."""
    pause(rest, long, monkeypatch)
    other = rest.another_caller()
    assert "is receiving the secrets" in message(other, f"{long}/manifest")[1]
    rest.lose()
    other.settle()
    assert other.call("GET", f"{long}/manifest")[1]["heldBy"] is None
    assert asked(other, f"{long}/manifest")[0] == 200


def test_a_connection_that_is_lost_while_the_record_is_written_gets_nothing(rest: Rest, path: str) -> None:
    """The record is taken back, since the last piece has not left."""
    other, lost = rest.another_caller(), False
    real = manifest.take

    def take(*args: Any) -> None:
        nonlocal lost
        real(*args)
        lost = True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest, "take", take)
        begin(rest, f"{path}/manifest")
        store = rest.api.store
        is_gone = False
        while not is_gone:
            work, args = store.reactor.calls.get(timeout=20)
            if lost:  # committed, and its answer is here: it has not been handed out yet
                rest.lose()
                is_gone = True
            work(*args)
    sent = rest.transport.value()
    assert b"token" not in sent and not is_whole(sent)
    other.settle()
    assert other.call("GET", f"{path}/manifest")[1]["taken"] is False


def test_a_slow_reader_is_waited_for(rest: Rest, long: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is read ahead of what the client takes; in the end it has all of it."""
    pause(rest, long, monkeypatch)
    seen = rest.transport.value()
    rest.settle()
    assert rest.transport.value() == seen and not is_whole(seen)
    assert rest.another_caller().call("GET", f"{long}/manifest")[1]["taken"] is False
    rest.transport.protocol.resumeProducing()
    assert len(answer(rest)[2].splitlines()) == 1 + ROWS
    assert rest.call("GET", f"{long}/manifest")[1]["taken"] is True


def test_a_download_that_was_overtaken_is_cut(rest: Rest, long: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its head is out: that the body ends too soon is how the client hears of it."""
    pause(rest, long, monkeypatch)
    batch = rest.api.store.read(lambda tx: tx.batch(TENANT, UUID(long.rpartition("/")[2])))
    rest.api.store.run(lambda tx: tx.delete_manifest_claim(batch.id))
    rest.transport.protocol.resumeProducing()
    answer(rest)
    assert rest.transport.disconnecting
    assert rest.another_caller().call("GET", f"{long}/manifest")[1]["taken"] is False


@pytest.mark.parametrize(
    ("method", "what"),
    [
        ("POST", "manifest?format=xml"), ("GET", "labels.pdf?secret=true"), ("GET", "labels.pdf?sheet=a5"),
        ("GET", "labels.pdf?shortId=perhaps"), ("POST", "labels.pdf?from=2"), ("GET", "labels.pdf?from=x"),
        ("GET", "labels.pdf?from=4"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_and_takes_nothing(rest: Rest, path: str, method: str, what: str) -> None:
    assert message(rest, f"{path}/{what}", method)[0] == 400
    assert rest.call("GET", f"{path}/manifest")[1]["heldBy"] is None
    assert message(rest, f"/api/imports/{uuid4()}/{what}", method)[0] in (400, 404)


def test_who_may_do_what(rest: Rest, path: str) -> None:
    """Operators see credentials; administrators alone release; viewers and customers' users see neither."""
    viewer, operator = token_of(UserRole.VIEWER), token_of(UserRole.OPERATOR)
    for method, what in (
        ("GET", "manifest"), ("POST", "manifest"), ("GET", "labels.pdf"), ("POST", "labels.pdf"),
        ("POST", "manifest/release"),
    ):  # fmt: skip
        assert message(rest, f"{path}/{what}", method, viewer)[0] == 403
    assert message(rest, f"{path}/manifest/release", by=operator)[0] == 403
    assert asked(rest, f"{path}/manifest", by=operator)[0] == 200
    assert asked(rest, f"{path}/manifest/release")[0] == 200


def test_imports_of_another_tenant_are_not_found(rest: Rest, path: str) -> None:
    stranger = Rest.token_of(Operator("s@test", "TENANT_ADMIN", TENANT + 1, uuid4(), uuid4()))
    for method, what in (("GET", "manifest"), ("POST", "manifest"), ("GET", "labels.pdf"), ("POST", "labels.pdf")):
        assert message(rest, f"{path}/{what}", method, stranger)[0] == 404


# -- labels ---------------------------------------------------------------------------------------


def test_labels_are_printed_as_often_as_one_likes(rest: Rest, path: str) -> None:
    """Names in the codes, names, labels and profiles in print; no secret, and the manifest stays."""
    for _ in range(2):
        status, headers, pdf = asked(rest, f"{path}/labels.pdf?sheet=roll-50x25&code=datamatrix&shortId=true", "GET")
        assert (status, headers["content-type"]) == (200, "application/pdf")
        assert codes_of(pdf) == ["SN-1", "SN-2"]
    uuid = id_of(rest.call("GET", "/api/tenant/devices?deviceName=SN-1")[1])
    printed = texts_of(pdf)
    assert "Насос" in printed and "sensor" in printed and uuid[-8:] in printed and "token" not in printed
    assert rest.call("GET", f"{path}/manifest")[1]["taken"] is False


def test_labels_of_some_rows(rest: Rest, path: str) -> None:
    """Rows of the file, its header counted, as they stand in the list of rows."""
    status, _, pdf = asked(rest, f"{path}/labels.pdf?from=3&to=3&sheet=letter-30&start=30", "GET")
    assert (status, codes_of(pdf), sizes_mm(pdf)) == (200, ["SN-2"], [(215.9, 279.4)])


def test_more_labels_than_a_sheet_takes_say_which_rows_to_ask_for(
    rest: Rest, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labels, "MAX_LABELS", 1)
    status, text = message(rest, f"{path}/labels.pdf", "GET")
    assert (status, "from=2&to=2, then from=3" in text) == (400, True)
    status, text = message(rest, f"{path}/labels.pdf")
    assert (status, "import the devices in parts" in text) == (400, True)
    assert rest.call("GET", f"{path}/manifest")[1]["heldBy"] is None


def test_a_code_can_carry_the_provision_key_without_the_secret(rest: Rest, path: str) -> None:
    """Of the device's own profile; one without a key is named."""
    _, _, pdf = asked(rest, f"{path}/labels.pdf?content=provisioning", "GET")
    assert json.loads(codes_of(pdf)[0]) == {"deviceName": "SN-1", "provisionDeviceKey": "sensor-key"}
    made = ended(rest, send(rest, "/api/imports", "name,type\nSN-9,keyless\n")[1])
    status, text = message(rest, f"/api/imports/{made['id']}/labels.pdf?content=provisioning", "GET")
    assert (status, "The profile 'keyless' of 'SN-9' has no provision key" in text) == (400, True)


def test_labels_with_secrets_take_the_manifest(rest: Rest, path: str) -> None:
    """One rule for both: after either, neither is shown."""
    status, headers, pdf = asked(rest, f"{path}/labels.pdf")
    assert (status, headers["cache-control"]) == (200, "no-store")
    assert [json.loads(text) for text in codes_of(pdf)] == [
        {"deviceName": "SN-1", "token": "token-1"}, {"deviceName": "SN-2", "token": "token-2"},
    ]  # fmt: skip
    assert "token" not in texts_of(pdf)
    assert rest.call("GET", f"{path}/manifest")[1]["takenAs"] == "labels"
    for what in ("manifest", "labels.pdf"):
        assert "taken as labels with secrets by admin@test" in message(rest, f"{path}/{what}")[1]


def labels_for(rest: Rest, body: Any, options: str = "", by: str | None = None) -> tuple[int, bytes]:
    content = json.dumps(body).encode()
    head = f"POST /api/devices/labels.pdf{options} HTTP/1.1\r\nHost: h\r\n{rest.headers(by)}"
    rest.send(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
    status, _, found = answer(rest)
    return status, found


def test_labels_of_any_devices_in_the_order_given(rest: Rest, path: str) -> None:
    """Also for viewers, who see the names anyway; without a secret, whatever is asked."""
    ids = [id_of(rest.call("GET", f"/api/tenant/devices?deviceName=SN-{number}")[1]) for number in (2, 1)]
    viewer = token_of(UserRole.VIEWER)
    status, pdf = labels_for(rest, {"deviceIds": ids}, "?sheet=roll-50x25&secret=true", viewer)
    assert (status, codes_of(pdf)) == (200, ["SN-2", "SN-1"])
    assert labels_for(rest, {"deviceIds": ids})[0] == 200
    for body, refused in (
        ({"deviceIds": []}, 400), ({"deviceIds": ids[0]}, 400), ({"deviceIds": ["x"]}, 404),
        ({"deviceIds": [str(uuid4())]}, 404), ({}, 400),
    ):  # fmt: skip
        assert labels_for(rest, body)[0] == refused
    stranger = Rest.token_of(Operator("s@test", "TENANT_ADMIN", TENANT + 1, uuid4(), uuid4()))
    assert labels_for(rest, {"deviceIds": ids}, by=stranger)[0] == 404


def test_labels_that_cannot_be_drawn_leave_the_manifest(rest: Rest, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A code too dense for the sheet; too many sheets at once."""
    made = ended(rest, send(rest, "/api/imports", f"name,access_token\nSN-3,{'t' * 900}\n")[1])
    other = f"/api/imports/{made['id']}"
    assert "too dense" in message(rest, f"{other}/labels.pdf?sheet=roll-50x25")[1]
    assert rest.call("GET", f"{other}/manifest")[1]["heldBy"] is None
    monkeypatch.setattr(labels, "MAX_DRAWING", 0)
    assert message(rest, f"{path}/labels.pdf")[0] == message(rest, f"{path}/labels.pdf", "GET")[0] == 503
    assert rest.call("GET", f"{path}/manifest")[1]["heldBy"] is None
