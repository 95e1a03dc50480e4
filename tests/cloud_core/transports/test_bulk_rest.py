"""Imports of devices over REST (wire-contract.md section 6.5)."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from twisted.internet.defer import succeed

from cloud_core.core.bulk import imports
from cloud_core.transports.http.intake import BoundedRequest
from cloud_core.transports.http.rest import bulk_routes
from tests.support.rest import Rest, id_of, without_threads
from tests.support.stores import StoreUnderTest

FILE = "name,type,label\nSN-1,sensor,one\nSN-2,sensor,\n"


@pytest.fixture
def rest(sqlite_store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> Rest:
    without_threads(monkeypatch)
    for module in (imports, bulk_routes):
        monkeypatch.setattr(module, "deferToThread", lambda work, *args: succeed(work(*args)))
    sqlite_store.add_profile("sensor")
    return Rest(sqlite_store)


def send(
    rest: Rest, path: str, content: bytes | str, kind: str = "text/csv", *, key: str = "", by: str | None = None
) -> tuple[int, Any]:
    data = content.encode() if isinstance(content, str) else content
    extra = f"Content-Type: {kind}\r\n" + (f"Idempotency-Key: {key}\r\n" if key else "")
    head = f"POST {path} HTTP/1.1\r\nHost: h\r\n{rest.headers(by)}{extra}Content-Length: {len(data)}\r\n\r\n"
    rest.send(head.encode() + data)
    ((status, _, answer),) = rest.responses()
    return status, json.loads(answer)


def ended(rest: Rest, batch: dict[str, Any]) -> dict[str, Any]:
    while batch["state"] in ("APPLYING", "UNDOING"):
        batch = rest.call("GET", f"/api/imports/{batch['id']}")[1]
    return batch


def bulk(rest: Rest, file: str, columns: list[dict[str, str]] | None, **mapping: Any) -> Any:
    given = {"delimiter": ",", "update": True, "header": True} | mapping
    if columns is not None:
        given["columns"] = columns
    return rest.call("POST", "/api/device/bulk_import", {"file": file, "mapping": given})


def test_thingsboards_bulk_import_creates_then_updates(rest: Rest) -> None:
    """Credentials of 20 characters, left alone when the row comes again; JSON cells are JSON attributes (D3)."""
    columns = [{"type": "NAME"}, {"type": "TYPE"}]
    answer = {"created": 1, "updated": 0, "errors": 0, "errorsList": []}
    assert bulk(rest, "NAME,TYPE\nSN-1,sensor", columns) == (200, answer)
    device = rest.call("GET", "/api/tenant/devices?deviceName=SN-1")[1]
    credentials = rest.call("GET", f"/api/device/{id_of(device)}/credentials")[1]
    assert len(credentials["credentialsId"]) == 20
    assert bulk(rest, "NAME,TYPE\nSN-1,sensor", columns) == (200, answer | {"created": 0, "updated": 1})
    assert rest.call("GET", "/api/tenant/devices?deviceName=SN-1")[1] == device
    assert rest.call("GET", f"/api/device/{id_of(device)}/credentials")[1] == credentials
    data = [{"type": "NAME"}, {"type": "SERVER_ATTRIBUTE", "key": "DATA"}]
    assert bulk(rest, 'N,D\nSN-1,1\nSN-2,"{""a"": 1}"', data, update=False)[1]["created"] == 1
    found = {}
    for name in ("SN-1", "SN-2"):
        uuid = id_of(rest.call("GET", f"/api/tenant/devices?deviceName={name}")[1])
        values = rest.call("GET", f"/api/plugins/telemetry/DEVICE/{uuid}/values/attributes/SERVER_SCOPE")[1]
        found[name] = {one["key"]: one["value"] for one in values if one["key"] == "DATA"}
    assert found == {"SN-1": {}, "SN-2": {"DATA": {"a": 1}}}


def test_thingsboards_bulk_import_applies_the_good_rows_and_lists_the_others(rest: Rest) -> None:
    """By line, counting the header; repeated names too (D3)."""
    status, answer = bulk(rest, "NAME\na\n<b>\na\n", [{"type": "NAME"}])
    assert (status, answer["created"], answer["updated"], answer["errors"]) == (200, 1, 0, 2)
    assert answer["errorsList"][0] == "Line 3: DataValidationException: name is malformed; correct the column 'name'"
    assert answer["errorsList"][1].startswith("Line 4: IllegalArgumentException: The name 'a' is in row 2 already")


def test_members_of_the_mapping_may_be_left_out(rest: Rest) -> None:
    """Comma, a header, and columns by their names in it."""
    status, answer = rest.call("POST", "/api/device/bulk_import", {"file": FILE})
    assert (status, answer["created"]) == (200, 2)
    status, answer = rest.call("POST", "/api/device/bulk_import", {"file": "nmae\nx"})
    assert (status, "did you mean 'name'" in answer["message"]) == (400, True)
    assert rest.call("POST", "/api/device/bulk_import", {"mapping": {}})[0] == 400


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("text/csv", FILE),
        ("text/csv; charset=utf-16", FILE.replace(",", ";").encode("utf-16")),
        ("application/x-ndjson", '{"name": "SN-1", "type": "sensor", "label": "one"}\n{"name": "SN-2"}\n'),
        ("application/json", '[{"name": "SN-1", "label": "one"}, {"name": "SN-2"}]'),
        (
            "multipart/form-data; boundary=b",
            f'--b\r\nContent-Disposition: form-data; name="file"; filename="x.csv"\r\n\r\n{FILE}\r\n--b--\r\n',
        ),
    ],
)
def test_a_file_of_any_kind_becomes_devices(rest: Rest, kind: str, content: str | bytes) -> None:
    """CSV, NDJSON, a JSON array, or a form's file; the batch says how far it is."""
    status, batch = send(rest, "/api/imports", content, kind)
    assert (status, batch["rows"], batch["mode"]) == (200, 2, "atomic")
    batch = ended(rest, batch)
    assert (batch["state"], batch["done"], batch["counts"]) == ("APPLIED", 2, {"CREATED": 2})
    assert rest.call("GET", "/api/tenant/devices?deviceName=SN-1")[1]["label"] == "one"


def test_a_plan_changes_nothing_until_it_is_applied(rest: Rest) -> None:
    """Its rows are paged by status; in the end an undo takes them back."""
    _, plan = send(rest, "/api/imports?plan=true&mode=partial", FILE + "<x>,,\n")
    assert (plan["state"], plan["counts"]) == ("PLANNED", {"CREATE": 2, "ERROR": 1})
    rows = rest.call("GET", f"/api/imports/{plan['id']}/rows?status=create&pageSize=1")[1]
    assert (rows["totalElements"], rows["hasNext"], rows["data"][0]["name"]) == (2, True, "SN-1")
    assert rest.call("GET", "/api/tenant/devices?deviceName=SN-1")[0] == 404
    batch = ended(rest, rest.call("POST", f"/api/imports/{plan['id']}/apply")[1])
    assert batch["counts"] == {"CREATED": 2, "ERROR": 1}
    (row,) = rest.call("GET", f"/api/imports/{plan['id']}/rows?status=ERROR")[1]["data"]
    assert (row["row"], row["code"], row["id"]) == (4, "MALFORMED", None)
    undone = ended(rest, rest.call("POST", f"/api/imports/{plan['id']}/undo")[1])
    assert (undone["state"], undone["counts"]["UNDONE"]) == ("UNDONE", 2)
    assert rest.call("GET", "/api/tenant/devices?deviceName=SN-1")[0] == 404
    listed = rest.call("GET", "/api/imports")[1]
    assert [one["id"] for one in listed["data"]] == [plan["id"]]


def test_bad_rows_come_back_as_a_file(rest: Rest) -> None:
    _, batch = send(rest, "/api/imports?mode=partial", FILE + "<x>,sensor,l\n")
    head = f"GET /api/imports/{batch['id']}/errors.csv HTTP/1.1\r\nHost: h\r\n{rest.headers(None)}\r\n"
    rest.send(head.encode())
    ((status, headers, content),) = rest.responses()
    assert (status, headers["content-type"]) == (200, "text/csv; charset=utf-8")
    rows = list(csv.reader(io.StringIO(content.decode("utf-8-sig"))))
    assert rows[0] == ["name", "type", "label", "error"]
    assert rows[1][:3] == ["<x>", "sensor", "l"]


def errors_of(rest: Rest, batch: dict[str, Any], name: str) -> tuple[int, dict[str, str], bytes]:
    rest.send(f"GET /api/imports/{batch['id']}/{name} HTTP/1.1\r\nHost: h\r\n{rest.headers(None)}\r\n".encode())
    ((status, headers, content),) = rest.responses()
    return status, headers, content


def test_bad_rows_of_a_json_file_keep_their_types(rest: Rest) -> None:
    """They come as NDJSON under a name that the batch tells; the other format is refused and says so."""
    _, batch = send(rest, "/api/imports?mode=partial", '[{"name": "<x>", "server:n": "007"}]', "application/json")
    assert (batch["errors"], batch["errorsFile"]) == (1, "errors.ndjson")
    status, headers, content = errors_of(rest, batch, "errors.ndjson")
    assert (status, headers["content-type"], headers["cache-control"]) == (200, "application/x-ndjson", "no-store")
    assert content.startswith(b'{"name":"<x>","server:n":"007","error":"')
    status, _, content = errors_of(rest, batch, "errors.csv")
    assert (status, b"errors.ndjson" in content) == (400, True)
    _, batch = send(rest, "/api/imports", FILE)
    assert batch["errorsFile"] is None


def test_a_large_error_file_is_sent_as_it_is_read(rest: Rest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Piece by piece, none of which holds more rows than are read at once."""
    monkeypatch.setattr(imports, "ERRORS_AT_ONCE", 5)
    _, batch = send(rest, "/api/imports?mode=partial", "name\n" + "<x>\n" * 23)
    pieces: list[int] = []
    write = BoundedRequest.write
    monkeypatch.setattr(
        BoundedRequest, "write", lambda self, data: (pieces.append(data.count(b"<x>")), write(self, data))[1]
    )
    status, _, content = errors_of(rest, batch, "errors.csv")
    assert (status, content.count(b"<x>")) == (200, 23)
    assert [one for one in pieces if one] == [5, 5, 5, 5, 3]


def test_an_unknown_column_is_named_and_nothing_is_imported(rest: Rest) -> None:
    status, answer = send(rest, "/api/imports", "name,lable\na,b\n")
    assert (status, "'lable'" in answer["message"], "did you mean 'label'" in answer["message"]) == (400, True, True)
    assert rest.call("GET", "/api/imports")[1]["data"] == []
    status, batch = send(rest, "/api/imports?plan=true&map=lable=label", "name,lable\na,b\n")
    assert (status, batch["state"]) == (200, "PLANNED")


def test_an_import_that_is_sent_twice_is_one(rest: Rest) -> None:
    """By the header Idempotency-Key; the answer is the same batch."""
    first, second = (send(rest, "/api/imports", FILE, key="k-1")[1] for _ in range(2))
    assert first["id"] == second["id"]
    assert send(rest, "/api/imports", "name\nz\n", key="k-1")[0] == 400


@pytest.mark.parametrize(
    "query", ["mode=some", "plan=perhaps", "delimiter=ab", "map=x", "format=xml", "encoding=ebcdic"]
)
def test_wrong_parameters_are_refused(rest: Rest, query: str) -> None:
    assert send(rest, f"/api/imports?{query}", FILE)[0] == 400


def test_imports_are_for_administrators(rest: Rest) -> None:
    """A customer's user is refused, who has not logged in too; unknown ids are not found."""
    user = rest.customer_user(rest.made("/api/customer", {"title": "ACME"}))
    for method, path in (
        ("GET", "/api/imports"), ("GET", "/api/imports/x"), ("GET", "/api/imports/x/rows"),
        ("GET", "/api/imports/x/errors.csv"), ("POST", "/api/imports/x/undo"), ("POST", "/api/imports/x/apply"),
        ("POST", "/api/device/bulk_import"), ("POST", "/api/imports"),
    ):  # fmt: skip
        assert rest.call(method, path, by=user)[0] == 403, path
        assert rest.call(method, path, by="")[0] == 401, path
    assert rest.call("GET", "/api/imports/00000000-0000-0000-0000-000000000000")[0] == 404
    assert rest.call("DELETE", "/api/imports")[0] == 405


def test_a_file_may_be_larger_than_other_bodies(rest: Rest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to 64 MiB; one that is larger is refused with the limit."""
    limited = bulk_routes.with_uploads(lambda _request, _method, _path: 16)
    assert limited(None, b"POST", b"/api/imports?plan=true") > bulk_routes.MAX_FILE_BYTES
    assert (limited(None, b"POST", b"/api/device"), limited(None, b"GET", b"/api/imports")) == (16, 16)
    monkeypatch.setattr(bulk_routes, "MAX_FILE_BYTES", 10)
    assert send(rest, "/api/imports", FILE)[0] == 413


def test_what_an_import_did_is_found_from_the_audit(rest: Rest) -> None:
    """Who decided it, how many rows of each kind, and the import's id, under which every device of it is listed."""
    send(rest, "/api/imports", "name,type\nSN-0,sensor\n")
    batch = ended(rest, send(rest, "/api/imports", "name,type,label\nSN-0,sensor,x\nSN-1,sensor,\n")[1])
    ended(rest, rest.call("POST", f"/api/imports/{batch['id']}/undo")[1])
    _, page = rest.call("GET", f"/api/audit?entityType=IMPORT&entityId={batch['id']}&sortOrder=ASC")
    begun, undone = page["data"]
    assert [(one["action"], one["actor"]) for one in (begun, undone)] == [
        ("IMPORTED", "admin@test"), ("UNDONE", "admin@test"),
    ]  # fmt: skip
    assert "1 CREATE, 1 UPDATE" in begun["detail"] and "1 CREATED, 1 UPDATED" in undone["detail"]
    _, rows = rest.call("GET", f"/api/imports/{begun['entityId']}/rows?pageSize=10&page=0")
    assert [(row["name"], row["status"], bool(row["id"])) for row in rows["data"]] == [
        ("SN-0", "UPDATED", True), ("SN-1", "UNDONE", True),
    ]  # fmt: skip
