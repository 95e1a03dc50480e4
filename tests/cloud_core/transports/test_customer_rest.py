"""Customers, their users, their devices and claims over REST (wire-contract.md sections 6.1 and 6.3)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import jwt
import pytest

from cloud_core.core.people.permissions import ACTS, Act, operator_may
from cloud_core.model import NIL_CUSTOMER, DevicePresence, Identity, Role
from cloud_core.transports.http.device_routes import DeviceRoutes
from cloud_core.transports.http.rest.est_routes import EstRoutes
from shared.messages import ClaimRequest
from tests.support.rest import Rest, id_of, without_threads
from tests.support.stores import TENANT, StoreUnderTest

NIL = str(NIL_CUSTOMER)


@pytest.fixture
def rest(sqlite_store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rest]:
    without_threads(monkeypatch)
    sqlite_store.add_profile()
    peer = Rest(sqlite_store)
    yield peer
    peer.close()


def make_customer(rest: Rest, title: str = "ACME", **members: Any) -> dict[str, Any]:
    return rest.made("/api/customer", {"title": title, **members})


def make_device(rest: Rest, name: str = "d", **members: Any) -> dict[str, Any]:
    return rest.made("/api/device", {"name": name, "type": "sensor", **members})


def give(rest: Rest, customer: dict[str, Any], device: dict[str, Any]) -> tuple[int, Any]:
    return rest.call("POST", f"/api/customer/{id_of(customer)}/device/{id_of(device)}")


def offer(rest: Rest, device: dict[str, Any], secret: str = "") -> None:
    number = rest.api.store.read(lambda tx: tx.device(TENANT, UUID(id_of(device)))).id
    identity = Identity(Role.DEVICE, TENANT, number)
    assert rest.api.outcome(lambda done: rest.api.api.claims.offer(identity, ClaimRequest(secret=secret), done)) is None


def owner_of(rest: Rest, device: dict[str, Any]) -> str:
    status, answer = rest.call("GET", f"/api/device/{id_of(device)}")
    assert status == 200
    owner: str = answer["customerId"]["id"]
    return owner


# -- customers ------------------------------------------------------------------------------------


def test_a_customer_is_made_read_changed_and_deleted(rest: Rest) -> None:
    """With the members that clients give it, and null for those that they do not."""
    made = make_customer(rest, city="Ulm", additionalInfo={"a": 1})
    path = f"/api/customer/{id_of(made)}"
    assert (made["title"], made["name"], made["city"], made["phone"], made["version"]) == (
        "ACME",
        "ACME",
        "Ulm",
        None,
        1,
    )
    assert rest.call("GET", path) == (200, made)
    changed = rest.made("/api/customer", made | {"city": "Bonn"})
    assert (id_of(changed), changed["city"], changed["version"]) == (id_of(made), "Bonn", 2)
    assert rest.call("POST", "/api/customer", made)[0] == 409
    assert rest.call("DELETE", path) == (200, None)
    status, error = rest.call("GET", path)
    assert (status, error["errorCode"]) == (404, 32)
    assert rest.call("DELETE", path)[0] == 404


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "Customer title should be specified!"),
        ({"title": " "}, "Customer title should be specified!"),
        ({"title": "x" * 256}, "Validation error: title length must be equal or less than 255"),
        ({"title": "taken"}, "Customer with such title already exists!"),
        ({"title": "t", "id": {"id": "x"}}, "Validation error: id is no valid id"),
    ],
)
def test_unusable_customers(rest: Rest, body: Any, message: str) -> None:
    make_customer(rest, "taken")
    status, error = rest.call("POST", "/api/customer", body)
    assert (status, error["message"]) == (400, message)


def test_customers_are_listed(rest: Rest) -> None:
    for title in ("b", "a", "c"):
        make_customer(rest, title)
    status, page = rest.call("GET", "/api/customers?pageSize=2&page=0&sortProperty=title&sortOrder=DESC")
    assert status == 200
    assert ([one["title"] for one in page["data"]], page["totalElements"], page["hasNext"]) == (["c", "b"], 3, True)


# -- users ----------------------------------------------------------------------------------------


def test_a_customers_user_logs_in(rest: Rest) -> None:
    """The token says whose user it is; so does the call that clients make next."""
    customer = make_customer(rest)
    user = rest.made(
        "/api/user",
        {"email": " u@x ", "authority": "CUSTOMER_USER", "customerId": customer["id"], "password": "pass-word"},
    )
    assert (user["email"], user["authority"], user["customerId"]) == ("u@x", "CUSTOMER_USER", customer["id"])
    assert "password" not in user
    status, pair = rest.call("POST", "/api/auth/login", {"username": "u@x", "password": "pass-word"}, by="")
    assert status == 200
    claims = jwt.decode(pair["token"], options={"verify_signature": False})
    assert (claims["scopes"], claims["customerId"]) == (["CUSTOMER_USER"], id_of(customer))
    status, me = rest.call("GET", "/api/auth/user", by=pair["token"])
    assert (status, me["email"], me["customerId"]) == (200, "u@x", customer["id"])
    status, again = rest.call("POST", "/api/auth/token", {"refreshToken": pair["refreshToken"]}, by="")
    assert rest.call("GET", "/api/auth/user", by=again["token"]) == (200, me)
    rest.call("DELETE", f"/api/customer/{id_of(customer)}")
    assert rest.call("POST", "/api/auth/token", {"refreshToken": pair["refreshToken"]}, by="")[0] == 401
    assert rest.call("POST", "/api/auth/login", {"username": "u@x", "password": "pass-word"}, by="")[0] == 401


def test_a_password_is_generated_and_shown_once(rest: Rest) -> None:
    """Where none is given; for another administrator too, who has no customer."""
    user = rest.made("/api/user", {"email": "a@x", "authority": "TENANT_ADMIN", "customerId": {"id": NIL}})
    assert user["customerId"]["id"] == NIL and len(user["password"]) == 20
    login = {"username": "a@x", "password": user["password"]}
    status, pair = rest.call("POST", "/api/auth/login", login, by="")
    assert status == 200
    assert rest.call("GET", "/api/customers?pageSize=1&page=0", by=pair["token"])[0] == 200


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"email": ""}, "User email should be specified!"),
        ({"email": "u"}, "Invalid email address format 'u'!"),
        ({"email": "taken@x"}, "User with email 'taken@x' already present in database!"),
        ({"authority": None}, "User authority must be TENANT_ADMIN or CUSTOMER_USER!"),
        ({"authority": "SYS_ADMIN"}, "User authority must be TENANT_ADMIN or CUSTOMER_USER!"),
        ({"customerId": None}, "Customer user should be assigned to customer!"),
        ({"customerId": {"id": str(uuid4())}}, "User is referencing to non-existent customer!"),
        ({"password": "short"}, "The password must have 8 to 200 characters"),
        ({"password": 12345678}, "The password must have 8 to 200 characters"),
        ({"role": "KING"}, "User role must be one of ADMINISTRATOR, OPERATOR, VIEWER!"),
    ],
)
def test_unusable_users(rest: Rest, members: dict[str, Any], message: str) -> None:
    rest.made("/api/user", {"email": "taken@x", "authority": "TENANT_ADMIN", "password": "pass-word"})
    good = {"email": "u@x", "authority": "CUSTOMER_USER", "customerId": make_customer(rest)["id"]}
    status, error = rest.call("POST", "/api/user", good | members)
    assert (status, error["message"]) == (400, message)


# -- devices of customers -------------------------------------------------------------------------


def test_a_device_is_given_taken_back_and_listed(rest: Rest) -> None:
    customer, device = make_customer(rest), make_device(rest)
    make_device(rest, "other")
    assert owner_of(rest, device) == NIL
    status, given = give(rest, customer, device)
    assert (status, given["customerId"]) == (200, customer["id"])
    status, page = rest.call("GET", f"/api/customer/{id_of(customer)}/devices?pageSize=10&page=0")
    assert (status, [one["name"] for one in page["data"]], page["totalElements"]) == (200, ["d"], 1)
    path = f"/api/customer/{id_of(customer)}/devices?pageSize=10&page=0&type=elsewhere"
    assert rest.call("GET", path)[1]["data"] == []
    status, taken = rest.call("DELETE", f"/api/customer/device/{id_of(device)}")
    assert (status, taken["customerId"]["id"]) == (200, NIL)
    status, error = rest.call("DELETE", f"/api/customer/device/{id_of(device)}")
    assert (status, error["message"]) == (400, "Device isn't assigned to any customer!")


def test_a_saved_device_keeps_changes_and_loses_its_customer(rest: Rest) -> None:
    """Without the member the owner stays; the nil customer takes it away; customers of others are refused. (D1)"""
    customer = make_customer(rest)
    device = make_device(rest, customerId=customer["id"])
    assert device["customerId"] == customer["id"]
    for members in ({"label": "l"}, {"customerId": None}):
        assert make_device(rest, id=device["id"], **members)["customerId"] == customer["id"]
    assert make_device(rest, id=device["id"], customerId={"id": NIL})["customerId"]["id"] == NIL
    body = {"name": "d", "id": device["id"], "customerId": {"id": str(uuid4())}}
    status, error = rest.call("POST", "/api/device", body)
    assert (status, error["message"]) == (400, "Can't assign device to non-existent customer!")


def test_credentials_outlive_a_change_of_owner(rest: Rest) -> None:
    """An owner is no part of what a device logs in with. (D2)"""
    customer, device = make_customer(rest), make_device(rest)
    before = rest.call("GET", f"/api/device/{id_of(device)}/credentials")
    give(rest, customer, device)
    assert rest.call("GET", f"/api/device/{id_of(device)}/credentials") == before


@pytest.mark.parametrize("which", ["customer", "device"])
def test_nothing_is_given_that_is_not_there(rest: Rest, which: str) -> None:
    customer, device = make_customer(rest), make_device(rest)
    unknown = {"id": {"id": str(uuid4())}}
    status, error = give(rest, unknown, device) if which == "customer" else give(rest, customer, unknown)
    assert (status, error["errorCode"]) == (404, 32)


def test_the_info_of_a_device_names_its_customer(rest: Rest) -> None:
    customer = make_customer(rest, additionalInfo={"isPublic": True})
    device = make_device(rest)
    path = f"/api/device/info/{id_of(device)}"
    status, info = rest.call("GET", path)
    assert (status, info["customerTitle"], info["customerIsPublic"], info["active"]) == (200, None, False, False)
    assert info["deviceProfileName"] == "sensor"
    give(rest, customer, device)
    number = rest.api.store.read(lambda tx: tx.device(TENANT, UUID(id_of(device)))).id
    rest.api.store.run(lambda tx: tx.put_presence([DevicePresence(device_id=number, is_active=True)]))
    _, info = rest.call("GET", path)
    assert (info["customerTitle"], info["customerIsPublic"], info["active"]) == ("ACME", True, True)
    assert rest.call("GET", f"/api/device/info/{uuid4()}")[0] == 404


# -- claims ---------------------------------------------------------------------------------------


def test_a_device_is_claimed_over_rest(rest: Rest) -> None:
    """Wrong: 400 "FAILURE"; right: 200 with the device; again: 400 "CLAIMED"; then it is given back. (M9)"""
    customer, device = make_customer(rest), make_device(rest)
    user, path = rest.customer_user(customer), "/api/customer/device/d/claim"
    offer(rest, device, "s")
    assert rest.call("POST", path, {"secretKey": "x"}, by=user) == (400, "FAILURE")
    offer(rest, device, "s")
    status, answer = rest.call("POST", path, {"secretKey": "s"}, by=user)
    assert (status, answer["response"], answer["device"]["customerId"]) == (200, "SUCCESS", customer["id"])
    assert rest.call("POST", path, {"secretKey": "s"}, by=user) == (400, "CLAIMED")
    assert owner_of(rest, device) == id_of(customer)
    assert rest.call("DELETE", path, by=user) == (200, None)
    assert owner_of(rest, device) == NIL


def test_an_offer_ends_when_the_device_gets_an_owner_otherwise(rest: Rest) -> None:
    """Also where that stands in the device itself: taken back, it is nobody's who knows the secret of before."""
    first, second, device = make_customer(rest), make_customer(rest, "other"), make_device(rest)
    offer(rest, device, "s")
    for customer in (first["id"], {"entityType": "CUSTOMER", "id": NIL}):
        rest.made("/api/device", {"id": device["id"], "name": "d", "customerId": customer})
    path = "/api/customer/device/d/claim"
    assert rest.call("POST", path, {"secretKey": "s"}, by=rest.customer_user(second)) == (400, "FAILURE")
    assert owner_of(rest, device) == NIL


def test_a_claim_without_a_secret_needs_no_body(rest: Rest) -> None:
    """Also for a device whose name must be written encoded. (M9)"""
    customer, device = make_customer(rest), make_device(rest, "my dévice")
    offer(rest, device)
    path = "/api/customer/device/my%20d%C3%A9vice/claim"
    assert rest.call("POST", path, by=rest.customer_user(customer))[0] == 200


def test_who_may_not_claim(rest: Rest) -> None:
    """An administrator has no customer to claim for; a stranger is nobody; a device must exist; a body must be one."""
    user, path = rest.customer_user(make_customer(rest)), "/api/customer/device/d/claim"
    assert rest.call("POST", path, by=user)[0] == 404
    assert rest.call("DELETE", path, by=user)[0] == 404
    make_device(rest)
    assert rest.call("POST", path)[0] == 403
    assert rest.call("POST", path, by="")[0] == 401
    assert rest.call("POST", path, [], by=user)[0] == 400


def test_an_administrator_ends_any_ownership_and_a_customer_its_own(rest: Rest) -> None:
    device = make_device(rest)
    owner, other = make_customer(rest), make_customer(rest, "other")
    path = "/api/customer/device/d/claim"
    give(rest, owner, device)
    assert rest.call("DELETE", path, by=rest.customer_user(other))[0] == 403
    assert rest.call("DELETE", path) == (200, None)
    assert owner_of(rest, device) == NIL


# -- who may what ---------------------------------------------------------------------------------

OPEN_TO_ALL = {
    ("GET", "/metrics"),  # by a token of its own
    ("GET", "/health/live"),
    ("GET", "/health/ready"),
    ("GET", "/api/ca/<uuid>/crl"),
    ("GET", "/api/ca/<uuid>/certificates"),
    ("POST", "/api/auth/login"),
    ("POST", "/api/auth/token"),
    ("GET", "/api/openapi.json"),
    ("GET", "/api/docs"),
    ("GET", "/api/docs/<file>"),
}
OPEN_TO_CUSTOMERS = {
    ("GET", "/api/auth/user"),
    ("POST", "/api/auth/logout"),
    ("POST", "/api/auth/changePassword"),
    ("GET", "/api/device/<uuid>"),
    ("GET", "/api/device/info/<uuid>"),
    ("GET", "/api/device/<uuid>/connections"),
    ("GET", "/api/customer/<uuid>/devices"),
    ("POST", "/api/customer/device/<name>/claim"),
    ("DELETE", "/api/customer/device/<name>/claim"),
    ("GET", "/api/plugins/telemetry/DEVICE/<uuid>/keys/timeseries"),
    ("GET", "/api/plugins/telemetry/DEVICE/<uuid>/values/timeseries"),
    ("GET", "/api/plugins/telemetry/DEVICE/<uuid>/values/timeseries/history"),
    ("GET", "/api/plugins/telemetry/DEVICE/<uuid>/keys/attributes"),
    ("GET", "/api/plugins/telemetry/DEVICE/<uuid>/keys/attributes/<scope>"),
    ("GET", "/api/plugins/telemetry/DEVICE/<uuid>/values/attributes"),
    ("GET", "/api/plugins/telemetry/DEVICE/<uuid>/values/attributes/<scope>"),
}


def routes_of(routes: Any, prefix: str = "") -> set[tuple[str, str]]:
    """(method, path) of every REST route, those of mounted files included, by whatever path they are named there."""
    found = set()
    for rule in routes.app.url_map.iter_rules():
        path = str(rule) if str(rule).startswith(("/api/", "/metrics", "/health/")) else prefix.rstrip("/") + str(rule)
        if rule.methods is not None:
            found |= {(method, path) for method in set(rule.methods) - {"HEAD", "OPTIONS"}}
        elif not rule.endpoint.endswith("_branch"):  # its twin, without the rest of the path, mounts the same
            request = SimpleNamespace(prepath=[], postpath=[])
            resource = routes.app.execute_endpoint(rule.endpoint, request, **dict.fromkeys(rule.arguments, ""))
            if not isinstance(resource._app._instance, DeviceRoutes | EstRoutes):
                found |= routes_of(resource._app._instance, path)
    return found


def test_a_customers_user_is_refused_wherever_it_is_not_expected(rest: Rest) -> None:
    """Every route that exists, one by one: what is not listed here is 403, what is listed is not."""
    customer, device = make_customer(rest), make_device(rest)
    give(rest, customer, device)
    routes = routes_of(rest.service._site.resource.routes)
    assert len(routes) > 40 and routes >= OPEN_TO_ALL | OPEN_TO_CUSTOMERS
    values = {"scope": "SERVER_SCOPE", "_scope": "ANY", "name": "nobody", "kind": "FIRMWARE"}
    refused = set()
    for method, rule in sorted(routes - OPEN_TO_ALL):
        is_customers = rule.startswith("/api/customer/<uuid>")
        path = re.sub(
            "<(?:[^:>]+:)?([^>]+)>",
            lambda found, c=is_customers: values.get(found[1], id_of(customer if c else device)),
            rule,
        )
        user = rest.customer_user(customer)  # one of the routes ends the login
        status, error = rest.call(method, path + "?pageSize=1&page=0&startTs=0&endTs=1", {}, by=user)
        if status == 403:
            assert error["errorCode"] == 20, rule
            refused.add((method, rule))
        assert rest.call(method, path, {}, by="")[0] == 401, rule
    assert routes - OPEN_TO_ALL - refused == OPEN_TO_CUSTOMERS


def test_a_customers_user_sees_its_own_devices_alone(rest: Rest) -> None:
    """Of the devices of others, and of nobody's, neither members nor data."""
    owner, other = make_customer(rest), make_customer(rest, "other")
    mine, foreign, free = (make_device(rest, name) for name in ("mine", "foreign", "free"))
    give(rest, owner, mine)
    give(rest, other, foreign)
    user = rest.customer_user(owner)
    readable = [
        rule.replace("<scope>", "SERVER_SCOPE")
        for method, rule in OPEN_TO_CUSTOMERS
        if method == "GET" and "<uuid>" in rule and not rule.startswith("/api/customer/")
    ]
    for rule in readable:
        status = {
            name: rest.call("GET", rule.replace("<uuid>", id_of(one)) + "?startTs=0&endTs=1", by=user)[0]
            for name, one in (("mine", mine), ("foreign", foreign), ("free", free))
        }
        assert status == {"mine": 200, "foreign": 403, "free": 403}, rule
    path = "/api/customer/{}/devices?pageSize=9&page=0"
    status, page = rest.call("GET", path.format(id_of(owner)), by=user)
    assert (status, [one["name"] for one in page["data"]]) == (200, ["mine"])
    assert rest.call("GET", path.format(id_of(other)), by=user)[0] == 403


def test_an_encoded_slash_leads_past_no_rule(rest: Rest) -> None:
    """Who may read a device does not get at its credentials by another spelling of the path."""
    customer, device = make_customer(rest), make_device(rest)
    give(rest, customer, device)
    path = f"/api/device/{id_of(device)}%2Fcredentials"
    assert rest.call("GET", path, by=rest.customer_user(customer))[0] in (403, 404)


def test_an_unknown_authority_may_nothing() -> None:
    assert not any(operator_may("OTHER", act) for act in Act)
    assert Act.ADMINISTER not in ACTS["CUSTOMER_USER"] and Act.CLAIM not in ACTS["TENANT_ADMIN"]
