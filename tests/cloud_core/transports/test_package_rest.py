"""Packages over REST, as ThingsBoard's clients call it; uploads within their bounds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from cloud_core.core.api import Options
from cloud_core.storage.interface.packages import BLOCK_BYTES
from cloud_core.transports.http.intake import MAX_REST_BODY_BYTES
from cloud_core.transports.http.rest.uploads import OVERHEAD_BYTES
from tests.support.http import Response
from tests.support.rest import Rest, id_of, without_threads
from tests.support.stores import StoreUnderTest

DATA = bytes(place % 251 for place in range(2 * BLOCK_BYTES + 77))
MAX_BYTES = MAX_REST_BODY_BYTES + 500_000


@pytest.fixture
def rest(sqlite_store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rest]:
    without_threads(monkeypatch)
    peer = Rest(sqlite_store, options=Options(max_package_bytes=MAX_BYTES))
    yield peer
    peer.close()


def make_profile(rest: Rest, name: str = "p") -> dict[str, Any]:
    return rest.made("/api/deviceProfile", {"name": name, "type": "DEFAULT", "transportType": "DEFAULT"})


def make_info(rest: Rest, profile: dict[str, Any], **members: Any) -> dict[str, Any]:
    body = {"deviceProfileId": profile["id"], "type": "FIRMWARE", "title": "fw", "version": "1.0"}
    return rest.made("/api/otaPackage", body | members)


def form(data: bytes, field: str = "file", name: str = "fw.bin") -> bytes:
    head = f'--xyz\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
    return head.encode() + b"Content-Type: application/x-fw\r\n\r\n" + data + b"\r\n--xyz--\r\n"


FORM = "Content-Type: multipart/form-data; boundary=xyz\r\n"


def upload(rest: Rest, package: dict[str, Any], body: bytes, query: str = "", headers: str = FORM) -> Response:
    rest.transport.clear()
    path = f"/api/otaPackage/{id_of(package)}{query}"
    head = f"POST {path} HTTP/1.1\r\nHost: h\r\n{rest.headers(None)}{headers}Content-Length: {len(body)}\r\n\r\n"
    rest.send(head.encode())
    for start in range(0, len(body), 1_000_000):
        rest.send(body[start : start + 1_000_000])
    for _ in range(40):  # a large package needs many commits
        rest.settle()
        if answers := rest.received():
            return answers[0]
    raise AssertionError("no answer")


def test_a_package_is_described_uploaded_read_and_downloaded(rest: Rest) -> None:
    """Byte for byte, under its own name, its checksum summed by the server."""
    profile = make_profile(rest)
    info = make_info(rest, profile, tag="t", additionalInfo={"a": 1})
    assert (info["hasData"], info["dataSize"], info["fileName"], info["tag"]) == (False, None, None, "t")
    status, _, _ = upload(rest, info, form(DATA), "?checksumAlgorithm=SHA256")
    assert status == 200
    path = f"/api/otaPackage/{id_of(info)}"
    status, package = rest.call("GET", f"/api/otaPackage/info/{id_of(info)}")
    assert rest.call("GET", path) == (200, package)
    assert (package["checksum"], package["checksumAlgorithm"]) == (hashlib.sha256(DATA).hexdigest(), "SHA256")
    assert (package["hasData"], package["dataSize"], package["fileName"]) == (True, len(DATA), "fw.bin")
    assert (package["contentType"], package["additionalInfo"]) == ("application/x-fw", {"a": 1})
    rest.ask(path + "/download", rest.headers(None))
    rest.settle()
    ((status, headers, data),) = rest.received()
    assert (status, data == DATA, headers["content-length"]) == (200, True, str(len(DATA)))
    assert (headers["content-disposition"], headers["x-filename"]) == ("attachment;filename=fw.bin", "fw.bin")
    assert headers["content-type"] == "application/x-fw"
    assert rest.call("DELETE", path) == (200, None)
    assert rest.call("GET", path)[0] == 404


def test_a_download_waits_for_a_slow_reader(rest: Rest) -> None:
    """No more than a block is read ahead; one that leaves in the middle harms nobody."""
    info = make_info(rest, make_profile(rest))
    upload(rest, info, form(DATA))
    channel = rest.transport.protocol
    rest.send(f"GET /api/otaPackage/{id_of(info)}/download HTTP/1.1\r\nHost: h\r\n{rest.headers(None)}\r\n".encode())
    while not rest.transport.value():
        rest.api.store.read(lambda tx: None)
    channel.pauseProducing()
    for _ in range(3):
        rest.settle()
    assert BLOCK_BYTES < len(rest.transport.value()) < BLOCK_BYTES + 1_000
    channel.resumeProducing()
    for _ in range(3):
        rest.settle()
    assert rest.received()[0][2] == DATA
    rest.send(f"GET /api/otaPackage/{id_of(info)}/download HTTP/1.1\r\nHost: h\r\n{rest.headers(None)}\r\n".encode())
    rest.lose()
    rest.settle()
    assert rest.received() == []


def test_packages_are_listed(rest: Rest) -> None:
    """All of them; or of a profile and kind those that can be assigned."""
    profile = make_profile(rest)
    first = make_info(rest, profile, title="a")
    make_info(rest, profile, title="b", url="https://h/f", usesUrl=True)
    status, page = rest.call("GET", "/api/otaPackages?pageSize=9&page=0&sortProperty=title&sortOrder=DESC")
    assert (status, [one["title"] for one in page["data"]], page["totalElements"]) == (200, ["b", "a"], 2)
    path = f"/api/otaPackages/{id_of(profile)}/FIRMWARE?pageSize=9&page=0"
    _, page = rest.call("GET", path)
    assert [(one["title"], one["hasData"], one["url"]) for one in page["data"]] == [("b", True, "https://h/f")]
    upload(rest, first, form(DATA))
    assert len(rest.call("GET", path)[1]["data"]) == 2
    assert rest.call("GET", path.replace("FIRMWARE", "SOFTWARE"))[1]["data"] == []
    assert rest.call("GET", path.replace("FIRMWARE", "WARE"))[0] == 400


def test_assignments_are_seen_in_device_and_profile(rest: Rest) -> None:
    """And keep the package from being deleted."""
    profile = make_profile(rest)
    info = make_info(rest, profile)
    upload(rest, info, form(DATA))
    device = rest.made("/api/device", {"name": "d", "type": "p", "firmwareId": info["id"]})
    assert rest.call("GET", f"/api/device/{id_of(device)}")[1]["firmwareId"] == info["id"]
    saved = rest.made("/api/deviceProfile", {**rest.call("GET", f"/api/deviceProfile/{id_of(profile)}")[1],
                                             "firmwareId": info["id"]})  # fmt: skip
    assert saved["firmwareId"] == info["id"]
    status, error = rest.call("DELETE", f"/api/otaPackage/{id_of(info)}")
    assert (status, "cannot be deleted" in error["message"]) == (400, True)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"deviceProfileId": None}, "OtaPackage deviceProfile should be specified!"),
        ({"deviceProfileId": {"id": str(uuid4())}}, "OtaPackage is referencing to non-existent device profile!"),
        ({"type": "WARE"}, "OtaPackage type must be one of FIRMWARE, SOFTWARE"),
        ({"title": None}, "OtaPackage title should be specified!"),
        ({"version": 1}, "Validation error: version must be a string"),
        ({"usesUrl": True}, "Ota package URL should be specified!"),
    ],
)
def test_unusable_descriptions(rest: Rest, members: dict[str, Any], message: str) -> None:
    body = {"deviceProfileId": make_profile(rest)["id"], "type": "FIRMWARE", "title": "fw", "version": "1.0"}
    status, error = rest.call("POST", "/api/otaPackage", body | members)
    assert (status, error["message"]) == (400, message)


@pytest.mark.parametrize(
    ("body", "headers", "query"),
    [
        (DATA, "", ""),
        (DATA, "Content-Type: multipart/form-data\r\n", ""),
        (b"junk", FORM, ""),
        (form(DATA)[:-30], FORM, ""),
        (form(DATA, field="other"), FORM, ""),
        (form(b""), FORM, ""),
        (form(DATA), FORM, "?checksumAlgorithm=SHA1"),
        (form(DATA), FORM, "?checksum=00&checksumAlgorithm=MD5"),
    ],
)
def test_unusable_uploads(rest: Rest, body: bytes, headers: str, query: str) -> None:
    """Each is a 400 that says what is wrong, and stores nothing."""
    info = make_info(rest, make_profile(rest))
    status, _, answer = upload(rest, info, body, query, headers)
    assert (status, b"message" in answer) == (400, True)
    assert rest.call("GET", f"/api/otaPackage/{id_of(info)}/download")[0] == 400


def test_a_form_is_bounded_apart_from_its_file(rest: Rest) -> None:
    info = make_info(rest, make_profile(rest))
    field = b'--xyz\r\nContent-Disposition: form-data; name="f"\r\n\r\n%b\r\n'
    for fields in (field % bytes(600_000), field % b"x" * 30):
        assert upload(rest, info, fields + form(DATA))[0] == 413


@pytest.mark.parametrize("name", ["../../etc/passwd", "C:\\\\temp\\\\passwd"])
def test_a_file_is_called_by_its_last_name(rest: Rest, name: str) -> None:
    info = make_info(rest, make_profile(rest))
    upload(rest, info, form(DATA, name=name))
    assert rest.call("GET", f"/api/otaPackage/{id_of(info)}")[1]["fileName"] == "passwd"


# -- bounds ---------------------------------------------------------------------------------------


def declared(rest: Rest, path: str, length: int, by: str | None = None, method: str = "POST") -> list[int]:
    """The answers to the mere announcement of a body."""
    rest.send(f"{method} {path} HTTP/1.1\r\nHost: h\r\n{rest.headers(by)}Content-Length: {length}\r\n\r\n".encode())
    return [status for status, _, _ in rest.received()]


def test_only_an_administrators_upload_may_be_large(rest: Rest) -> None:
    """The bound is decided by the headers, before a byte is stored."""
    path, large = f"/api/otaPackage/{uuid4()}", MAX_BYTES + OVERHEAD_BYTES
    assert declared(rest, path + "?checksumAlgorithm=MD5", large) == []  # it may come
    for by, where, length, method in (
        (None, path, large + 1, "POST"),
        ("", path, large, "POST"),
        ("junk", path, large, "POST"),
        (None, path, large, "PUT"),
        (None, "/api/otaPackage", large, "POST"),
        (None, path + "/download", large, "POST"),
        (None, "/api/device", large, "POST"),
    ):
        assert declared(rest.another_caller(), where, length, by, method) == [413], (by, where, length, method)


def test_an_undeclared_upload_is_counted(rest: Rest) -> None:
    info = make_info(rest, make_profile(rest))
    head = f"POST /api/otaPackage/{id_of(info)} HTTP/1.1\r\nHost: h\r\n{rest.headers(None)}{FORM}"
    rest.send(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n")
    chunk = b"100000\r\n" + bytes(0x100000) + b"\r\n"
    for _ in range(17):
        rest.send(chunk)
    assert rest.received() == []
    rest.send(chunk)
    assert [status for status, _, _ in rest.received()] == [413]


def test_a_package_above_the_bound_of_others_is_stored(rest: Rest) -> None:
    info = make_info(rest, make_profile(rest))
    data = bytes(MAX_BYTES)
    status, _, answer = upload(rest, info, form(data), "?checksumAlgorithm=CRC32")
    assert (status, b'"dataSize":%d' % MAX_BYTES in answer) == (200, True)
    again = make_info(rest, make_profile(rest, "q"), title="again")
    assert upload(rest, again, form(data + b"x"))[0] == 413
