"""What users of each role may do over REST: every route, one by one."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from uuid import uuid4

import jwt
import pytest

from cloud_core.core.people.logins import Operator, Tokens
from cloud_core.core.people.permissions import ROLE_ACTS, Act, operator_may
from cloud_core.model import DEFAULT_TENANT, UserRole
from cloud_core.transports.http.calls import CallSupport
from cloud_core.transports.http.rest.shapes import HIDDEN
from shared.errors import NotAuthorized
from tests.cloud_core.transports.test_customer_rest import OPEN_TO_ALL, routes_of
from tests.support.rest import Rest, id_of, without_threads
from tests.support.stores import TENANT, StoreUnderTest

ADMINISTRATOR, OPERATOR, VIEWER = UserRole
TELEMETRY = "/api/plugins/telemetry"

# Which act each route names.
ROUTES: dict[Act, set[tuple[str, str]]] = {
    Act.USE_OWN_LOGIN: {("GET", "/api/auth/user"), ("POST", "/api/auth/logout"), ("POST", "/api/auth/changePassword")},
    Act.READ: {
        ("GET", "/api/events"),
        ("GET", "/api/deviceProfile/<uuid>"), ("GET", "/api/deviceProfiles"), ("GET", "/api/deviceProfileInfos"),
        ("GET", "/api/deviceProfileInfo/default"), ("GET", "/api/deviceProfileInfo/<uuid>"),
        ("GET", "/api/tenant/device"), ("GET", "/api/tenant/devices"),
        ("POST", "/api/devices/labels.pdf"),
        ("POST", "/api/devices"),  # the search; the list names WRITE_DEVICES too
        ("GET", "/api/provisioning/attempts"), ("GET", "/api/provisioning/attempts/<ref>"),
        ("GET", "/api/customer/<uuid>"), ("GET", "/api/customers"),
        ("GET", "/api/otaPackage/<uuid>"), ("GET", "/api/otaPackage/info/<uuid>"), ("GET", "/api/otaPackages"),
        ("GET", "/api/otaPackage/<uuid>/download"), ("GET", "/api/otaPackages/<profile>/<kind>"),
        ("GET", "/api/rpc/persistent/<uuid>"), ("GET", "/api/rpc/persistent/device/<uuid>"),
        ("GET", "/api/plugins/rpc/persistent/<uuid>"), ("GET", "/api/plugins/rpc/persistent/device/<uuid>"),
        ("GET", "/api/relation"), ("GET", "/api/relations"),
        ("GET", "/api/ca"), ("GET", "/api/ca/<which>"), ("GET", "/api/certificates"),
        ("GET", "/api/device/types"), ("GET", "/api/deviceProfile/names"), ("GET", "/api/devices"),
        ("GET", "/api/gateways"), ("GET", "/api/gateway/<uuid>"), ("GET", "/api/gateway/<uuid>/devices"),
        ("GET", "/api/tenant/deviceInfos"), ("GET", "/api/deviceInfos/all"),
        *(("GET", f"/api/relations/{end}/<kind>/<uuid>{of}") for end in ("from", "to") for of in ("", "/<type_>")),
    },
    Act.READ_AUDIT: {("GET", "/api/audit"), ("GET", "/api/audit/verify")},
    Act.READ_DEVICES: {
        ("GET", "/api/device/<uuid>"), ("GET", "/api/device/info/<uuid>"), ("GET", "/api/customer/<uuid>/devices"),
        ("GET", "/api/device/<uuid>/connections"),
        ("GET", f"{TELEMETRY}/DEVICE/<uuid>/keys/timeseries"), ("GET", f"{TELEMETRY}/DEVICE/<uuid>/values/timeseries"),
        ("GET", f"{TELEMETRY}/DEVICE/<uuid>/values/timeseries/history"),
        ("GET", f"{TELEMETRY}/DEVICE/<uuid>/keys/attributes"),
        ("GET", f"{TELEMETRY}/DEVICE/<uuid>/keys/attributes/<scope>"),
        ("GET", f"{TELEMETRY}/DEVICE/<uuid>/values/attributes"),
        ("GET", f"{TELEMETRY}/DEVICE/<uuid>/values/attributes/<scope>"),
    },
    Act.READ_CREDENTIALS: {
        ("GET", "/api/device/<uuid>/credentials"), ("POST", "/api/imports/<uuid>/manifest"),
        ("POST", "/api/imports/<uuid>/labels.pdf"),
    },
    Act.RELEASE_MANIFESTS: {("POST", "/api/imports/<uuid>/manifest/release")},
    Act.WRITE_DEVICES: {
        ("GET", "/api/provisioning/pending"),
        *(("POST", f"/api/provisioning/pending/{word}") for word in ("accept", "reject")),
        *(("POST", f"/api/provisioning/pending/<uuid>/{word}") for word in ("accept", "reject")),
        ("POST", "/api/device/<uuid>/resetProvisioning"), ("POST", "/api/device/<uuid>/replace"),
        ("POST", "/api/device"), ("POST", "/api/device-with-credentials"), ("DELETE", "/api/device/<uuid>"),
        ("POST", "/api/device/credentials"), ("POST", "/api/relation"), ("DELETE", "/api/relation"),
        ("POST", "/api/v2/relation"), ("DELETE", "/api/v2/relation"),
        ("POST", "/api/customer/<customer>/device/<device>"), ("DELETE", "/api/customer/device/<device>"),
    },
    Act.IMPORT_DEVICES: {
        ("POST", "/api/device/bulk_import"), ("POST", "/api/imports"), ("GET", "/api/imports"),
        ("GET", "/api/imports/<uuid>"), ("GET", "/api/imports/<uuid>/rows"), ("GET", "/api/imports/<uuid>/errors.csv"),
        ("GET", "/api/imports/<uuid>/errors.ndjson"),
        ("POST", "/api/imports/<uuid>/apply"), ("POST", "/api/imports/<uuid>/undo"),
        ("GET", "/api/imports/<uuid>/manifest"), ("GET", "/api/imports/<uuid>/labels.pdf"),
    },
    Act.WRITE_DATA: {
        ("POST", f"{TELEMETRY}/DEVICE/<uuid>/timeseries/<_scope>/<ttl>"),
        ("POST", f"{TELEMETRY}/DEVICE/<uuid>/timeseries/<_scope>"),
        ("POST", f"{TELEMETRY}/<uuid>/<scope>"), ("POST", f"{TELEMETRY}/DEVICE/<uuid>/<scope>"),
        ("POST", f"{TELEMETRY}/DEVICE/<uuid>/attributes/<scope>"),
        ("DELETE", f"{TELEMETRY}/<uuid>/<scope>"), ("DELETE", f"{TELEMETRY}/DEVICE/<uuid>/<scope>"),
        ("POST", "/api/devices/attributes/<scope>"), ("DELETE", f"{TELEMETRY}/DEVICE/<uuid>/timeseries/delete"),
    },
    Act.SEND_RPC: {
        (method, f"/api/{prefix}rpc/{path}")
        for prefix in ("", "plugins/")
        for method, path in (("POST", "oneway/<uuid>"), ("POST", "twoway/<uuid>"), ("DELETE", "persistent/<uuid>"))
    },
    Act.WRITE_PACKAGES: {("POST", "/api/otaPackage"), ("POST", "/api/otaPackage/<uuid>")},
    Act.DELETE_PACKAGES: {("DELETE", "/api/otaPackage/<uuid>")},
    Act.ADMINISTER_CA: {
        ("POST", "/api/ca"), ("POST", "/api/ca/import"), ("POST", "/api/ca/<which>/issue"),
        ("POST", "/api/certificates/revoke"),
    },
    Act.ADMINISTER_USERS: {
        ("POST", "/api/user"), ("GET", "/api/user/<uuid>"), ("DELETE", "/api/user/<uuid>"),
        ("POST", "/api/user/<uuid>/password"), ("GET", "/api/users"), ("GET", "/api/customer/<customer>/users"),
    },
    Act.ADMINISTER_KEYS: {("POST", "/api/apiKey"), ("DELETE", "/api/apiKey/<uuid>"), ("GET", "/api/apiKeys")},
    Act.ADMINISTER_TENANTS: {
        ("POST", "/api/tenant"), ("GET", "/api/tenant/<uuid>"), ("DELETE", "/api/tenant/<uuid>"),
        ("GET", "/api/tenants"), ("GET", "/api/tenant/<uuid>/users"),
    },
    Act.ADMINISTER: {
        ("POST", "/api/deviceProfile"), ("DELETE", "/api/deviceProfile/<uuid>"),
        ("POST", "/api/deviceProfile/<uuid>/default"),
        ("POST", "/api/customer"), ("DELETE", "/api/customer/<uuid>"),
        ("POST", "/api/deviceProfile/<profile>/rotateSecret"), ("GET", "/api/deviceProfile/<profile>/adoption"),
        ("GET", "/api/deviceProfile/<profile>/keys"), ("POST", "/api/deviceProfile/<profile>/keys"),
        ("POST", "/api/deviceProfile/<profile>/keys/<key>"), ("DELETE", "/api/deviceProfile/<profile>/keys/<key>"),
        ("GET", "/api/serverMethods"), ("POST", "/api/serverMethods"), ("DELETE", "/api/serverMethods/<method>"),
    },
    Act.CLAIM: {("POST", "/api/customer/device/<name>/claim")},
    Act.GIVE_BACK: {("DELETE", "/api/customer/device/<name>/claim")},
}  # fmt: skip


@pytest.fixture
def rest(sqlite_store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rest]:
    without_threads(monkeypatch)
    sqlite_store.add_profile()
    peer = Rest(sqlite_store)
    yield peer
    peer.close()


def token_of(role: UserRole) -> str:
    operator = Operator(f"{role.lower()}@test", "TENANT_ADMIN", TENANT, DEFAULT_TENANT, uuid4(), role=role)
    return Rest.token_of(operator)


def filled(rule: str) -> str:
    values = {"scope": "SERVER_SCOPE", "kind": "FIRMWARE", "name": "nobody"}
    return re.sub("<(?:[^:>]+:)?([^>]+)>", lambda found: values.get(found[1], str(uuid4())), rule)


def status_of(rest: Rest, method: str, path: str, token: str) -> int:
    """Of a call whose answer may be no JSON."""
    head = f"{method} {path} HTTP/1.1\r\nHost: h\r\n{rest.headers(token)}Content-Length: 2\r\n\r\n{{}}"
    rest.send(head.encode())
    ((status, _, _),) = rest.responses()
    return status


def test_every_route_names_its_act(rest: Rest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table above is complete, and each route asks for what stands there, before anything else."""
    asked: list[Act] = []

    def operator(self: CallSupport, request: object, act: Act) -> Operator:
        asked.append(act)
        raise NotAuthorized

    monkeypatch.setattr(CallSupport, "operator", operator)
    named = {}
    for method, rule in routes_of(rest.service._site.resource.routes) - OPEN_TO_ALL:
        asked.clear()
        rest.call(method, filled(rule) + "?pageSize=1&page=0", {})
        named[method, rule] = tuple(asked)
    assert named == {route: (act,) for act, routes in ROUTES.items() for route in routes}


@pytest.mark.parametrize("role", UserRole)
def test_each_role_is_refused_what_its_acts_do_not_hold(rest: Rest, role: UserRole) -> None:
    """403 on exactly those routes; everywhere else the call itself is judged."""
    for act, routes in ROUTES.items():
        for method, rule in routes:
            asked = "?pageSize=1&page=0&kinds=none"  # a stream of events would not end
            status = status_of(rest, method, filled(rule) + asked, token_of(role))
            assert (status == 403) is (act not in ROLE_ACTS[role]), (role, method, rule, status)


def test_roles_are_a_ladder() -> None:
    """Who may more may all that the others may; secrets and people are the administrator's."""
    assert ROLE_ACTS[VIEWER] < ROLE_ACTS[OPERATOR] < ROLE_ACTS[ADMINISTRATOR]
    for act in (Act.ADMINISTER_USERS, Act.READ_PROFILE_SECRETS, Act.ADMINISTER_CA, Act.DELETE_PACKAGES, Act.ADMINISTER):
        assert act not in ROLE_ACTS[OPERATOR]
    assert operator_may("CUSTOMER_USER", Act.WRITE_DEVICES, ADMINISTRATOR) is False


def test_the_search_of_devices_is_reading_and_the_list_writing(rest: Rest) -> None:
    token = token_of(VIEWER)
    search = {"parameters": {"rootId": str(uuid4()), "rootType": "DEVICE"}}
    assert rest.call("POST", "/api/devices", search, by=token) == (200, [])
    assert rest.call("POST", "/api/devices", [{"name": "d"}], by=token)[0] == 403
    assert rest.call("POST", "/api/devices", [{"name": "d"}], by=token_of(OPERATOR))[0] == 200


@pytest.mark.parametrize("role", [OPERATOR, VIEWER])
def test_provision_secrets_are_hidden_from_who_may_not_see_them(rest: Rest, role: UserRole) -> None:
    """In the profile and in the list; an administrator that saves the hidden one is told."""
    _, page = rest.call("GET", "/api/deviceProfiles?pageSize=10&page=0", by=token_of(role))
    profile = page["data"][0]
    _, alone = rest.call("GET", f"/api/deviceProfile/{id_of(profile)}", by=token_of(role))
    for shown in (profile, alone):
        assert shown["provisionDeviceKey"] == "sensor-key" and "sensor-secret" not in str(shown)
        assert shown["profileData"]["provisionConfiguration"]["provisionDeviceSecret"] == HIDDEN
    status, error = rest.call("POST", "/api/deviceProfile", profile)
    assert (status, error["message"]) == (
        400, "Validation error: provisionDeviceSecret is the hidden one; read the profile anew",
    )  # fmt: skip
    _, revealed = rest.call("GET", f"/api/deviceProfile/{id_of(profile)}")
    assert revealed["profileData"]["provisionConfiguration"]["provisionDeviceSecret"] == "sensor-secret"


def test_a_user_of_a_role_logs_in_as_that(rest: Rest) -> None:
    """The authority stays the one that clients know; the role stands beside it."""
    body = {"email": "v@x", "authority": "TENANT_ADMIN", "role": "VIEWER", "password": "pass-word"}
    assert rest.made("/api/user", body)["role"] == "VIEWER"
    _, pair = rest.call("POST", "/api/auth/login", {"username": "v@x", "password": "pass-word"}, by="")
    claims = jwt.decode(pair["token"], options={"verify_signature": False})
    assert (claims["scopes"], claims["role"]) == (["TENANT_ADMIN"], "VIEWER")
    _, me = rest.call("GET", "/api/auth/user", by=pair["token"])
    assert (me["authority"], me["role"]) == ("TENANT_ADMIN", "VIEWER")
    assert rest.call("POST", "/api/device", {"name": "d"}, by=pair["token"])[0] == 403


@pytest.mark.parametrize("change", [{"role": "KING"}, {"authority": "GOD"}, {"userId": "x"}])
def test_claims_that_nobody_issued_open_nothing(rest: Rest, change: dict[str, object]) -> None:
    """Also with the right signature: an unknown role or authority is nobody's."""
    claims = jwt.decode(rest.caller, b"j" * 64, algorithms=["HS512"])
    forged = jwt.encode(claims | change, b"j" * 64, algorithm="HS512")
    assert rest.call("GET", "/api/customers?pageSize=1&page=0", by=forged)[0] in (401, 403)


@pytest.mark.parametrize(("key", "algorithm"), [(b"x" * 64, "HS512"), (b"j" * 64, "HS256"), (None, "none")])
def test_tokens_of_another_key_or_algorithm_are_refused(rest: Rest, key: bytes | None, algorithm: str) -> None:
    claims = jwt.decode(Tokens(b"j" * 64).issue(operator_of(VIEWER), int(time.time()))["token"], b"j" * 64, ["HS512"])
    forged = jwt.encode(claims | {"role": "ADMINISTRATOR"}, key, algorithm=algorithm)  # type: ignore[arg-type]
    assert rest.call("GET", "/api/auth/user", by=forged)[0] == 401


def operator_of(role: UserRole) -> Operator:
    return Operator("u@test", "TENANT_ADMIN", TENANT, DEFAULT_TENANT, uuid4(), role=role)


def test_the_audit_is_told_to_administrators_alone(rest: Rest) -> None:
    """Events are for all; who asks for those of the audit has to be allowed to read it."""
    assert status_of(rest, "GET", "/api/events?kinds=audit", token_of(VIEWER)) == 403
    assert status_of(rest, "GET", "/api/events?kinds=audit", token_of(OPERATOR)) == 403
