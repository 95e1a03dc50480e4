"""Tenants over REST: a system administrator makes them, and none reaches what another has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select
from twisted.internet.defer import Deferred

from cloud_core.core.people.logins import Operator
from cloud_core.core.people.permissions import ACTS
from cloud_core.model import DEFAULT_TENANT, SYSTEM_TENANT
from cloud_core.storage.schema import batch, batch_row
from shared.errors import InvalidArgument, QuotaExceeded
from tests.cloud_core.transports.test_roles_rest import ROUTES, filled, status_of
from tests.support.rest import Rest, id_of, without_threads
from tests.support.stores import TENANT, StoreUnderTest

PAGE = "?pageSize=100&page=0"
PASSWORD = "pass-word"
SYSTEM = "sys@x"


class Tenants(Rest):
    """Calls as the administrator of the first tenant unless told otherwise."""

    def __init__(self, store: StoreUnderTest, **options: Any) -> None:
        super().__init__(store, **options)
        self.admin = self.service._site.resource.routes._admin
        self.wait(self.admin.ensure_system_admin(SYSTEM, PASSWORD))
        self.system = self.log_in(SYSTEM)

    def wait(self, call: Any) -> Any:
        """The result of a coroutine; a refusal is raised."""
        outcomes: list[Any] = []
        failures: list[Any] = []
        Deferred.fromCoroutine(call).addCallbacks(outcomes.append, failures.append)
        self.api.store.reactor.run_until(lambda: outcomes or failures)
        if failures:
            raise failures[0].value
        return outcomes[0]

    def log_in(self, username: str, password: str = PASSWORD) -> str:
        status, pair = self.call("POST", "/api/auth/login", {"username": username, "password": password}, by="")
        assert status == 200, pair
        token: str = pair["token"]
        return token

    def ok(self, method: str, path: str, body: Any = None, *, by: str | None = None) -> Any:
        status, answer = self.call(method, path, body, by=by)
        assert status == 200, answer
        return answer

    def tenant(self, title: str = "B", **members: Any) -> dict[str, Any]:
        made: dict[str, Any] = self.ok("POST", "/api/tenant", {"title": title, **members}, by=self.system)
        return made

    def administrator(self, tenant: dict[str, Any], email: str = "b@x") -> str:
        """The token of an administrator of this tenant."""
        body = {"email": email, "authority": "TENANT_ADMIN", "tenantId": tenant["id"], "password": PASSWORD}
        self.ok("POST", "/api/user", body, by=self.system)
        return self.log_in(email)


@pytest.fixture
def rest(sqlite_store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tenants]:
    without_threads(monkeypatch)
    peer = Tenants(sqlite_store)
    yield peer
    peer.close()


# -- tenants --------------------------------------------------------------------------------------


def test_a_tenant_is_made_read_changed_and_listed(rest: Tenants) -> None:
    """With the members that clients give it; the system's own place is no tenant to anybody."""
    made = rest.tenant(email="b@example", maxDevices=3)
    assert (made["title"], made["name"], made["email"], made["maxDevices"], made["phone"]) == (
        "B", "B", "b@example", 3, None,
    )  # fmt: skip
    path = f"/api/tenant/{id_of(made)}"
    assert rest.ok("GET", path, by=rest.system) == made
    changed = rest.ok("POST", "/api/tenant", made | {"title": "C"}, by=rest.system)
    assert (changed["title"], changed["id"]) == ("C", made["id"])
    page = rest.ok("GET", f"/api/tenants{PAGE}&sortProperty=title&textSearch=c", by=rest.system)
    assert [one["title"] for one in page["data"]] == ["C"]
    everyone = rest.ok("GET", f"/api/tenants{PAGE}", by=rest.system)
    assert (everyone["totalElements"], str(SYSTEM_TENANT) in str([one["id"] for one in everyone["data"]])) == (2, False)
    assert rest.call("GET", f"/api/tenant/{SYSTEM_TENANT}", by=rest.system)[0] == 404


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "Tenant title should be specified!"),
        ({"title": "default"}, "Tenant with such title already exists!"),
        ({"title": "t", "maxDevices": -1}, "Validation error: maxDevices must be 0 (without limit) to 1000000000"),
        ({"title": "t", "maxDevices": "2"}, "Validation error: maxDevices must be 0 (without limit) to 1000000000"),
    ],
)
def test_unusable_tenants(rest: Tenants, body: dict[str, Any], message: str) -> None:
    status, error = rest.call("POST", "/api/tenant", body, by=rest.system)
    assert (status, error["message"]) == (400, message)


def test_a_tenant_has_a_default_profile_and_users_of_its_own(rest: Tenants) -> None:
    tenant = rest.tenant()
    token = rest.administrator(tenant)
    assert rest.ok("GET", "/api/auth/user", by=token)["tenantId"] == tenant["id"]
    assert rest.ok("GET", "/api/deviceProfileInfo/default", by=token)["tenantId"] == tenant["id"]
    page = rest.ok("GET", f"/api/tenant/{id_of(tenant)}/users{PAGE}", by=rest.system)
    assert [(one["email"], one["tenantId"], one["role"]) for one in page["data"]] == [
        ("b@x", tenant["id"], "ADMINISTRATOR")
    ]


def test_a_tenant_is_deleted_with_all_that_it_has(rest: Tenants) -> None:
    """Its devices only where that is said; its users and keys are out at once; others keep theirs."""
    tenant = rest.tenant()
    token = rest.administrator(tenant)
    things = things_of(rest, token)
    key = rest.ok("POST", "/api/apiKey", {"name": "k2", "role": "VIEWER"}, by=token)["value"]
    path, kept = f"/api/tenant/{id_of(tenant)}", rest.made("/api/device", {"name": "kept"})
    for number in range(25):
        rest.ok("POST", "/api/device", {"name": f"more-{number}"}, by=token)
    status, error = rest.call("DELETE", path, by=rest.system)
    assert (status, error["message"]) == (
        400, "The tenant has 26 devices; delete them first, or say withDevices=true",
    )  # fmt: skip
    assert rest.ok("GET", f"/api/device/{things['device']}", by=token)
    rest.ask(f"{path}?withDevices=true", rest.headers(rest.system), "DELETE")
    for _ in range(10):  # some devices at a time
        rest.settle()
    assert [status for status, _, _ in rest.received()] == [200]
    assert rest.call("GET", path, by=rest.system)[0] == 404
    assert rest.call("GET", "/api/auth/user", by=token)[0] == 401
    assert rest.get("/api/auth/user", f"X-Authorization: ApiKey {key}\r\n")[0] == 401
    assert rest.ok("GET", f"/api/device/{id_of(kept)}") == kept
    rest.administrator(rest.tenant())  # name and address are free again


def test_a_tenants_imports_end_with_it(rest: Tenants) -> None:
    """One under way makes no more devices; nothing of what the files held is kept."""
    tenant = rest.tenant()
    token = rest.administrator(tenant)
    lines = "".join(f"d{number},token-{number}\n" for number in range(120))
    body = f"name,access_token\n{lines}".encode()
    head = f"POST /api/imports HTTP/1.1\r\nHost: h\r\n{rest.headers(token)}Content-Type: text/csv\r\n"
    rest.send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    rest.ask(f"/api/tenant/{id_of(tenant)}?withDevices=true", rest.headers(rest.system), "DELETE")
    for _ in range(60):
        rest.settle()
    assert [status for status, _, _ in rest.received()][-1] == 200
    assert rest.call("GET", f"/api/tenant/{id_of(tenant)}", by=rest.system)[0] == 404

    def left(tx: Any) -> tuple[int, int]:
        return tuple(tx._query(select(func.count()).select_from(table))[0][0] for table in (batch, batch_row))

    assert rest.api.store.read(left) == (0, 0)


def test_the_first_tenant_stays(rest: Tenants) -> None:
    assert rest.call("DELETE", f"/api/tenant/{DEFAULT_TENANT}", by=rest.system)[0] == 400
    assert rest.call("DELETE", f"/api/tenant/{SYSTEM_TENANT}", by=rest.system)[0] == 404
    assert rest.call("DELETE", f"/api/tenant/{uuid4()}", by=rest.system)[0] == 404


# -- system administrators ------------------------------------------------------------------------


def test_a_system_administrator_sees_nothing_of_a_tenant(rest: Tenants) -> None:
    """Every route that exists: 403 but for tenants, users and the own login."""
    for act, routes in ROUTES.items():
        for method, rule in routes:
            status = status_of(rest, method, filled(rule) + "?pageSize=1&page=0", rest.system)
            assert (status == 403) is (act not in ACTS["SYS_ADMIN"]), (method, rule, status)
            if rule == "/api/auth/logout":
                rest.system = rest.log_in(SYSTEM)


def test_a_system_administrator_reaches_the_users_of_tenants_and_not_of_their_customers(rest: Tenants) -> None:
    tenant = rest.tenant()
    token = rest.administrator(tenant)
    customer = rest.ok("POST", "/api/customer", {"title": "ACME"}, by=token)
    body = {"email": "c@x", "authority": "CUSTOMER_USER", "customerId": customer["id"], "password": PASSWORD}
    hidden = id_of(rest.ok("POST", "/api/user", body, by=token))
    assert rest.call("GET", f"/api/user/{hidden}", by=rest.system)[0] == 404
    assert rest.call("DELETE", f"/api/user/{hidden}", by=rest.system)[0] == 404
    assert rest.call("POST", f"/api/user/{hidden}/password", {}, by=rest.system)[0] == 404
    (known,) = rest.ok("GET", f"/api/tenant/{id_of(tenant)}/users{PAGE}", by=rest.system)["data"]
    answer = rest.ok("POST", f"/api/user/{id_of(known)}/password", {}, by=rest.system)
    assert rest.call("GET", "/api/auth/user", by=token)[0] == 401
    rest.log_in("b@x", answer["password"])
    page = rest.ok("GET", f"/api/users{PAGE}", by=rest.system)
    assert [(one["email"], one["authority"]) for one in page["data"]] == [(SYSTEM, "SYS_ADMIN")]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"authority": "CUSTOMER_USER"}, "User authority must be SYS_ADMIN or TENANT_ADMIN!"),
        ({"tenantId": None}, "Tenant administrator should be assigned to tenant!"),
        ({"tenantId": {"id": str(uuid4())}}, "User is referencing to non-existent tenant!"),
        ({"tenantId": {"id": str(SYSTEM_TENANT)}}, "User is referencing to non-existent tenant!"),
    ],
)
def test_unusable_users_of_tenants(rest: Tenants, members: dict[str, Any], message: str) -> None:
    body = {"email": "n@x", "authority": "TENANT_ADMIN", "tenantId": rest.tenant()["id"], "password": PASSWORD}
    status, error = rest.call("POST", "/api/user", body | members, by=rest.system)
    assert (status, error["message"]) == (400, message)


def test_nobody_of_a_tenant_makes_a_system_administrator(rest: Tenants) -> None:
    """Nor a user of another tenant: whose id is posted along is ignored."""
    tenant = rest.tenant()
    body = {"email": "n@x", "authority": "SYS_ADMIN", "password": PASSWORD}
    assert rest.call("POST", "/api/user", body)[0] == 400
    made = rest.made("/api/user", body | {"authority": "TENANT_ADMIN", "tenantId": tenant["id"]})
    assert made["tenantId"]["id"] == str(DEFAULT_TENANT)


def test_the_first_system_administrator_comes_from_the_configuration(rest: Tenants) -> None:
    """A password given anew replaces the old; the name of a tenant's user is refused; the last one stays."""
    rest.wait(rest.admin.ensure_system_admin(SYSTEM, "another-word"))
    rest.system = rest.log_in(SYSTEM, "another-word")
    rest.administrator(rest.tenant())
    with pytest.raises(InvalidArgument, match="is a user of a tenant"):
        rest.wait(rest.admin.ensure_system_admin("b@x", PASSWORD))
    (only,) = rest.ok("GET", f"/api/users{PAGE}", by=rest.system)["data"]
    rest.ok("POST", "/api/user", {"email": "s2@x", "authority": "SYS_ADMIN", "password": PASSWORD}, by=rest.system)
    other = rest.log_in("s2@x")
    rest.ok("DELETE", f"/api/user/{id_of(only)}", by=other)
    assert rest.call("GET", f"/api/tenants{PAGE}", by=rest.system)[0] == 401


# -- limits ---------------------------------------------------------------------------------------


def test_a_tenant_has_no_more_devices_than_it_may(rest: Tenants) -> None:
    """By REST, by a list, and by provisioning; the first tenant has its own count."""
    token = rest.administrator(rest.tenant(maxDevices=1))
    profile = rest.ok("POST", "/api/deviceProfile", PROFILE, by=token)
    key = profile["provisionDeviceKey"]
    secret = profile["profileData"]["provisionConfiguration"]["provisionDeviceSecret"]
    rest.ok("POST", "/api/device", {"name": "one"}, by=token)
    status, error = rest.call("POST", "/api/device", {"name": "two"}, by=token)
    assert (status, error["message"]) == (400, "the tenant has its 1 devices")
    (row,) = rest.ok("POST", "/api/devices", [{"name": "two"}], by=token)
    assert (row["status"], row["error"]) == ("ERROR", "the tenant has its 1 devices")
    refused = rest.api.provision(provision_key=key, provision_secret=secret, device_name="two")
    assert isinstance(refused, QuotaExceeded)
    rest.made("/api/device", {"name": "one"})
    rest.made("/api/device", {"name": "two"})


# -- apart from each other ------------------------------------------------------------------------

PROFILE = {
    "name": "p", "type": "DEFAULT", "transportType": "DEFAULT", "provisionType": "ALLOW_CREATE_NEW_DEVICES",
}  # fmt: skip


def things_of(rest: Tenants, token: str | None) -> dict[str, str]:
    """One of each kind, by its id; names are the same in both tenants."""
    profile = rest.ok("POST", "/api/deviceProfile", PROFILE, by=token)
    device = rest.ok("POST", "/api/device", {"name": "d", "type": "p"}, by=token)
    customer = rest.ok("POST", "/api/customer", {"title": "ACME"}, by=token)
    package = {"deviceProfileId": profile["id"], "type": "FIRMWARE", "title": "fw", "version": "1", "url": "http://h/f"}
    command = {"method": "m", "params": {}, "persistent": True}
    user = {"email": f"{uuid4()}@x", "authority": "TENANT_ADMIN", "role": "VIEWER", "password": PASSWORD}
    rest.ok("POST", "/api/serverMethods", {"method": "weather", "url": "https://h.example/w"}, by=token)
    return {
        "profile": id_of(profile), "device": id_of(device), "customer": id_of(customer),
        "package": id_of(rest.ok("POST", "/api/otaPackage", package, by=token)),
        "command": rest.ok("POST", f"/api/rpc/oneway/{id_of(device)}", command, by=token)["rpcId"],
        "ca": rest.ok("POST", "/api/ca", {"name": "ca"}, by=token)["id"]["id"],
        "user": id_of(rest.ok("POST", "/api/user", user, by=token)),
        "key": id_of(rest.ok("POST", "/api/apiKey", {"name": "k", "role": "VIEWER"}, by=token)),
    }  # fmt: skip


KINDS = {
    "/api/deviceProfile": "profile", "/api/deviceProfileInfo": "profile", "/api/customer": "customer",
    "/api/otaPackage": "package", "/api/otaPackages": "profile", "/api/rpc/persistent/device": "device",
    "/api/plugins/rpc/persistent/device": "device", "/api/rpc/persistent": "command",
    "/api/plugins/rpc/persistent": "command", "/api/ca": "ca", "/api/user": "user", "/api/apiKey": "key",
}  # fmt: skip
NOT_BY_ID = {"<ref>", "<name>", "<method>"}  # names within the tenant, and references of attempts


def foreign(rule: str, theirs: dict[str, str]) -> str:
    """The path with ids of another tenant's entities."""
    kind = next((kind for prefix, kind in sorted(KINDS.items(), reverse=True) if rule.startswith(prefix + "/")), "")
    values = {"scope": "SERVER_SCOPE", "_scope": "ANY", "kind": "FIRMWARE", "customer": theirs["customer"]}
    values["profile"], values["device"] = theirs["profile"], theirs["device"]
    is_device_data = not kind
    return re.sub(
        "<(?:[^:>]+:)?([^>]+)>",
        lambda found: values.get(found[1], theirs["device"] if is_device_data else theirs[kind]),
        rule,
    )


def test_no_path_leads_to_what_another_tenant_has(rest: Tenants) -> None:
    """Every route with an id in it: as if there were none, whatever the method; and nothing has changed there."""
    token = rest.administrator(rest.tenant())
    theirs = things_of(rest, None)
    before = everything(rest, theirs)
    walked = 0
    for act, routes in ROUTES.items():
        for method, rule in routes:
            if act.name == "ADMINISTER_TENANTS" or "<" not in rule or any(one in rule for one in NOT_BY_ID):
                continue
            path = foreign(rule, theirs) + "?pageSize=10&page=0&keys=k"
            body = b'{"k":1,"method":"m","deviceIds":["%b"],"values":{"k":1}}' % theirs["device"].encode()
            head = f"{method} {path} HTTP/1.1\r\nHost: h\r\n{rest.headers(token)}Content-Length: {len(body)}"
            rest.send(f"{head}\r\n\r\n".encode() + body)
            ((status, _, answer),) = rest.responses()
            assert status in (400, 404), (method, rule, status, answer)
            walked += 1
    assert walked > 45
    assert everything(rest, theirs) == before


def everything(rest: Tenants, theirs: dict[str, str]) -> list[Any]:
    """What the tenant sees of its own."""
    paths = [
        f"/api/device/{theirs['device']}", f"/api/device/{theirs['device']}/credentials",
        f"/api/deviceProfile/{theirs['profile']}", f"/api/customer/{theirs['customer']}",
        f"/api/otaPackage/{theirs['package']}", f"/api/rpc/persistent/{theirs['command']}", f"/api/ca/{theirs['ca']}",
        f"/api/user/{theirs['user']}", f"/api/apiKeys{PAGE}", f"/api/users{PAGE}",
        f"/api/plugins/telemetry/DEVICE/{theirs['device']}/values/timeseries",
        f"/api/plugins/telemetry/DEVICE/{theirs['device']}/values/attributes/SHARED_SCOPE",
    ]  # fmt: skip
    return [rest.ok("GET", path) for path in paths]


def test_lists_hold_what_is_the_tenants_own(rest: Tenants) -> None:
    """The same names on both sides, and no id of the other's anywhere."""
    token = rest.administrator(rest.tenant())
    theirs, own = things_of(rest, None), things_of(rest, token)
    for path in (
        "/api/tenant/devices", "/api/deviceProfiles", "/api/deviceProfileInfos", "/api/customers", "/api/otaPackages",
        "/api/users", "/api/apiKeys", "/api/certificates", "/api/ca", "/api/serverMethods",
        "/api/provisioning/attempts", "/api/tenant/device", "/api/relations",
    ):  # fmt: skip
        extra = f"&deviceName=d&fromType=DEVICE&fromId={theirs['device']}" if path != "/api/tenant/devices" else ""
        shown = str(rest.ok("GET", path + PAGE + extra, by=token))
        assert not any(identifier in shown for identifier in theirs.values()), path
    assert id_of(rest.ok("GET", "/api/tenant/device?deviceName=d", by=token)) == own["device"]


def test_nothing_of_one_tenant_is_put_into_anothers(rest: Tenants) -> None:
    """Ids in bodies reach no further than ids in paths."""
    token = rest.administrator(rest.tenant())
    theirs, own = things_of(rest, None), things_of(rest, token)

    def entity(kind: str, which: str) -> dict[str, str]:
        return {"entityType": kind, "id": which}

    device = {"id": entity("DEVICE", own["device"]), "name": "d", "type": "p"}
    relation = {"from": entity("DEVICE", own["device"]), "to": entity("DEVICE", theirs["device"]), "type": "Contains"}
    user = {"email": "z@x", "authority": "CUSTOMER_USER", "customerId": entity("CUSTOMER", theirs["customer"])}
    credentials = {
        "deviceId": entity("DEVICE", theirs["device"]),
        "credentialsType": "ACCESS_TOKEN",
        "credentialsId": "x",
    }
    for path, body in (
        ("/api/device", device | {"id": entity("DEVICE", theirs["device"])}),
        ("/api/device", device | {"customerId": entity("CUSTOMER", theirs["customer"])}),
        ("/api/device", device | {"deviceProfileId": entity("DEVICE_PROFILE", theirs["profile"])}),
        ("/api/device", device | {"firmwareId": entity("OTA_PACKAGE", theirs["package"])}),
        ("/api/device/credentials", credentials),
        ("/api/deviceProfile", PROFILE | {"id": entity("DEVICE_PROFILE", theirs["profile"])}),
        ("/api/customer", {"title": "t", "id": entity("CUSTOMER", theirs["customer"])}),
        ("/api/otaPackage", {"deviceProfileId": entity("DEVICE_PROFILE", theirs["profile"]), "type": "FIRMWARE",
                             "title": "x", "version": "2", "url": "http://h/f"}),
        ("/api/relation", relation),
        ("/api/user", user),
        (f"/api/customer/{own['customer']}/device/{theirs['device']}", None),
        (f"/api/customer/{theirs['customer']}/device/{own['device']}", None),
    ):  # fmt: skip
        status, error = rest.call("POST", path, body, by=token)
        assert status in (400, 404), (path, body, error)


def test_attempts_are_shown_to_the_tenant_they_concern(rest: Tenants) -> None:
    """Those with a key that nobody knows to the first one; by its reference to whoever has been told it."""
    tenant = rest.tenant()
    token = rest.administrator(tenant)
    profile = rest.ok("POST", "/api/deviceProfile", PROFILE, by=token)
    own = rest.api.provision(provision_key=profile["provisionDeviceKey"], device_name="b-device")
    nobodys = rest.api.provision(provision_key="unknown", device_name="stray")
    names = {
        who: [one["deviceName"] for one in rest.ok("GET", "/api/provisioning/attempts", by=by)]
        for who, by in (("first", None), ("own", token))
    }
    assert names == {"first": ["stray"], "own": ["b-device"]}
    assert rest.call("GET", f"/api/provisioning/attempts/{own.ref}")[0] == 404
    assert rest.ok("GET", f"/api/provisioning/attempts/{own.ref}", by=token)["deviceName"] == "b-device"
    assert rest.ok("GET", f"/api/provisioning/attempts/{nobodys.ref}", by=token)["deviceName"] == "stray"


def test_a_claim_reaches_no_device_of_another_tenant(rest: Tenants) -> None:
    tenant = rest.tenant()
    token = rest.administrator(tenant)
    things_of(rest, None)
    customer = rest.ok("POST", "/api/customer", {"title": "ACME"}, by=token)
    number = rest.api.store.read(lambda tx: tx.tenant(UUID(id_of(tenant)))).id
    owner = rest.api.store.read(lambda tx: tx.customer(number, UUID(id_of(customer)))).id
    user = Operator("c@x", "CUSTOMER_USER", number, UUID(id_of(tenant)), uuid4(), owner, UUID(id_of(customer)))
    path = "/api/customer/device/d/claim"
    assert rest.call("POST", path, {"secretKey": ""}, by=rest.token_of(user))[0] == 404
    assert rest.call("DELETE", path, by=rest.token_of(user))[0] == 404
    assert number != TENANT


# -- the audit ------------------------------------------------------------------------------------


def deeds(rest: Tenants, by: str) -> list[tuple[str, str, str]]:
    """(actor, action, entity type) of all entries, oldest first; the chain they stand in is whole."""
    assert rest.ok("GET", "/api/audit/verify", by=by)["intact"] is True
    rows = rest.ok("GET", "/api/audit?sortOrder=ASC", by=by)["data"]
    return [(one["actor"], one["action"], one["entityType"]) for one in rows]


def test_what_is_done_to_users_and_keys_is_audited(rest: Tenants) -> None:
    """Under the name of who did it; a program's deeds under that of its API key."""
    token = rest.administrator(rest.tenant())
    body = {"email": "eve@x", "authority": "TENANT_ADMIN", "role": "VIEWER", "password": PASSWORD}
    eve = id_of(rest.ok("POST", "/api/user", body, by=token))
    rest.ok("POST", f"/api/user/{eve}/password", {"password": PASSWORD * 2}, by=token)
    rest.ok("DELETE", f"/api/user/{eve}", by=token)
    key = rest.ok("POST", "/api/apiKey", {"name": "line", "role": "OPERATOR"}, by=token)
    operator = rest.admin.access.operator_of_key(key["value"])
    rest.wait(rest.admin.save_device(operator, {"name": "d", "type": "p"}))
    rest.ok("DELETE", f"/api/apiKey/{id_of(key)}", by=token)
    assert deeds(rest, token)[1:] == [
        ("b@x", "CREATED", "USER"), ("b@x", "PASSWORD_CHANGED", "USER"), ("b@x", "DELETED", "USER"),
        ("b@x", "CREATED", "API_KEY"), ("API key line", "CREATED", "DEVICE"), ("b@x", "DELETED", "API_KEY"),
    ]  # fmt: skip


def test_a_deleted_tenants_audit_ends_in_the_systems_own(rest: Tenants) -> None:
    """Number and hash of its last entry are kept, by which a copy of its audit can be judged."""
    made = rest.tenant()
    token = rest.administrator(made)
    rest.ok("POST", "/api/device", {"name": "d", "type": "p"}, by=token)
    last = rest.ok("GET", "/api/audit/verify", by=token)
    rest.ok("DELETE", f"/api/tenant/{id_of(made)}?withDevices=true", by=rest.system)
    found = [one for one in deeds(rest, rest.system) if one[2] == "TENANT"]
    assert found == [(SYSTEM, action, "TENANT") for action in ("CREATED", "CLOSED", "DELETED")]
    newest = rest.ok("GET", "/api/audit?pageSize=1", by=rest.system)["data"][0]
    assert newest["detail"] == f"its audit ended with entry {last['lastNumber']}, {last['lastHash']}"
