"""Users over REST, and the end of their logins (wire-contract.md section 6.1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from tests.support.api import ApiUnderTest
from tests.support.http import HttpPeer
from tests.support.rest import Rest, id_of, without_threads
from tests.support.stores import StoreUnderTest, open_store

ME = "/api/auth/user"
PASSWORD = "pass-word"


@pytest.fixture
def rest(sqlite_store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rest]:
    without_threads(monkeypatch)
    peer = Rest(sqlite_store)
    yield peer
    peer.close()


def make_user(rest: Rest, email: str = "u@x", **members: Any) -> dict[str, Any]:
    body = {"email": email, "authority": "TENANT_ADMIN", "password": PASSWORD}
    return rest.made("/api/user", body | members)


def log_in(rest: Rest, email: str = "u@x", password: str = PASSWORD) -> dict[str, str]:
    status, pair = rest.call("POST", "/api/auth/login", {"username": email, "password": password}, by="")
    assert status == 200, pair
    found: dict[str, str] = pair
    return found


def refreshed(rest: Rest, pair: dict[str, str]) -> tuple[int, Any]:
    return rest.call("POST", "/api/auth/token", {"refreshToken": pair["refreshToken"]}, by="")


def assert_over(rest: Rest, *pairs: dict[str, str]) -> None:
    """Neither token of these is good."""
    for pair in pairs:
        assert rest.call("GET", ME, by=pair["token"])[0] == 401
        assert refreshed(rest, pair)[0] == 401


# -- users ----------------------------------------------------------------------------------------


def test_a_user_is_read_changed_and_deleted(rest: Rest) -> None:
    make_user(rest, "keeper@x")
    made = make_user(rest, firstName="Ada", additionalInfo={"lang": "en"})
    path = f"/api/user/{id_of(made)}"
    assert rest.call("GET", path) == (200, made)
    assert (made["firstName"], made["lastName"], made["role"]) == ("Ada", None, "ADMINISTRATOR")
    changed = rest.made("/api/user", made | {"lastName": "L", "role": "VIEWER", "email": "ada@x"})
    assert (changed["lastName"], changed["role"], changed["email"], changed["id"]) == (
        "L",
        "VIEWER",
        "ada@x",
        made["id"],
    )
    assert rest.call("DELETE", path) == (200, None)
    assert rest.call("GET", path)[0] == rest.call("DELETE", path)[0] == 404


def test_users_are_searched_sorted_and_paged(rest: Rest) -> None:
    for email in ("b@x", "a@x", "c@y"):
        make_user(rest, email)
    _, page = rest.call("GET", "/api/users?pageSize=1&page=0&textSearch=X&sortProperty=email&sortOrder=ASC")
    assert ([one["email"] for one in page["data"]], page["totalElements"], page["hasNext"]) == (["a@x"], 2, True)
    assert not any("password" in name.lower() for name in page["data"][0])


def test_users_of_a_customer_are_listed(rest: Rest) -> None:
    customer = rest.made("/api/customer", {"title": "ACME"})
    make_user(rest)
    make_user(rest, "c@x", authority="CUSTOMER_USER", customerId=customer["id"])
    _, page = rest.call("GET", f"/api/customer/{id_of(customer)}/users?pageSize=9&page=0")
    assert [(one["email"], one["customerId"], one["role"]) for one in page["data"]] == [("c@x", customer["id"], None)]
    assert rest.call("GET", f"/api/customer/{uuid4()}/users?pageSize=9&page=0")[0] == 404


def test_the_last_administrator_stays(rest: Rest) -> None:
    """Neither deleted nor made less; nor does anybody delete oneself."""
    only = make_user(rest)
    for status, error in (
        rest.call("DELETE", f"/api/user/{id_of(only)}"),
        rest.call("POST", "/api/user", only | {"role": "OPERATOR"}),
    ):
        assert (status, error["message"]) == (400, "This is the last administrator; make another one first")
    make_user(rest, "second@x")
    assert rest.call("DELETE", f"/api/user/{id_of(only)}", by=log_in(rest)["token"])[0] == 400
    assert rest.call("DELETE", f"/api/user/{id_of(only)}")[0] == 200


@pytest.mark.parametrize("change", [{"authority": "CUSTOMER_USER"}, {"email": "second@x"}, {"role": "KING"}])
def test_unusable_changes(rest: Rest, change: dict[str, Any]) -> None:
    make_user(rest, "second@x")
    made = make_user(rest)
    if "authority" in change:
        change = change | {"customerId": rest.made("/api/customer", {"title": "ACME"})["id"]}
    assert rest.call("POST", "/api/user", made | change)[0] == 400
    assert rest.call("GET", f"/api/user/{id_of(made)}") == (200, made)


# -- the end of logins ----------------------------------------------------------------------------


def test_a_logout_ends_its_session_with_all_its_tokens(rest: Rest) -> None:
    """Those that a refresh made too; other sessions of the user go on."""
    make_user(rest)
    mine, other = log_in(rest), log_in(rest)
    _, again = refreshed(rest, mine)
    assert rest.call("POST", "/api/auth/logout", by=again["token"]) == (200, None)
    assert_over(rest, mine, again)
    assert rest.call("GET", ME, by=other["token"])[0] == refreshed(rest, other)[0] == 200


def test_a_deleted_user_is_out_at_once(rest: Rest) -> None:
    """Also where somebody has the name by now."""
    make_user(rest, "keeper@x")
    made, pair = make_user(rest), log_in(rest)
    rest.call("DELETE", f"/api/user/{id_of(made)}")
    assert_over(rest, pair)
    make_user(rest)
    assert_over(rest, pair)
    assert rest.call("GET", ME, by=log_in(rest)["token"])[0] == 200


def test_the_users_of_a_deleted_customer_are_out_at_once(rest: Rest) -> None:
    customer = rest.made("/api/customer", {"title": "ACME"})
    make_user(rest, authority="CUSTOMER_USER", customerId=customer["id"])
    pair = log_in(rest)
    rest.call("DELETE", f"/api/customer/{id_of(customer)}")
    assert_over(rest, pair)


def test_another_role_counts_at_once(rest: Rest) -> None:
    """Tokens with the former role are refused; the next login has the new one. A change of the name ends nothing."""
    make_user(rest, "keeper@x")
    made, pair = make_user(rest), log_in(rest)
    rest.made("/api/user", made | {"firstName": "Ada"})
    assert rest.call("GET", ME, by=pair["token"])[0] == 200
    rest.made("/api/user", made | {"role": "VIEWER"})
    assert_over(rest, pair)
    token = log_in(rest)["token"]
    assert rest.call("POST", "/api/device", {"name": "d"}, by=token)[0] == 403
    assert rest.call("GET", "/api/users?pageSize=1&page=0", by=token)[0] == 403


def test_a_user_changes_the_password(rest: Rest) -> None:
    """All logins end but the one that is answered."""
    make_user(rest)
    mine, other = log_in(rest), log_in(rest)
    body = {"currentPassword": PASSWORD, "newPassword": "another-word"}
    status, pair = rest.call("POST", "/api/auth/changePassword", body, by=mine["token"])
    assert status == 200 and rest.call("GET", ME, by=pair["token"])[0] == refreshed(rest, pair)[0] == 200
    assert_over(rest, mine, other)
    assert rest.call("POST", "/api/auth/login", {"username": "u@x", "password": PASSWORD}, by="")[0] == 401
    log_in(rest, password="another-word")


@pytest.mark.parametrize(
    ("current", "new", "message"),
    [
        ("wrong", "another-word", "Current password doesn't match!"),
        (PASSWORD, "short", "The password must have 8 to 200 characters"),
        (PASSWORD, None, "The password must have 8 to 200 characters"),
    ],
)
def test_a_password_is_not_changed_by_just_anybody(rest: Rest, current: str, new: Any, message: str) -> None:
    make_user(rest)
    body = {"currentPassword": current, "newPassword": new}
    status, error = rest.call("POST", "/api/auth/changePassword", body, by=log_in(rest)["token"])
    assert (status, error["message"]) == (400, message)
    log_in(rest)


def test_an_administrator_gives_a_new_password(rest: Rest) -> None:
    """Told or generated; the logins of the user end."""
    made, pair = make_user(rest), log_in(rest)
    path = f"/api/user/{id_of(made)}/password"
    assert rest.call("POST", path, {"password": "told-word"}) == (200, None)
    assert_over(rest, pair)
    log_in(rest, password="told-word")
    status, answer = rest.call("POST", path, {})
    assert status == 200
    log_in(rest, password=answer["password"])
    assert rest.call("POST", f"/api/user/{uuid4()}/password", {})[0] == 404


def test_logins_stay_ended_on_every_node_and_after_a_restart(
    store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other nodes learn it with their next poll; until then a refresh asks the database about users anyway."""
    without_threads(monkeypatch)
    rest = Rest(store)
    make_user(rest)
    pairs = [log_in(rest), log_in(rest)]
    other_store = open_store(store.url)
    other = HttpPeer(ApiUnderTest(other_store))
    header = [f"X-Authorization: Bearer {pair['token']}\r\n" for pair in pairs]
    assert [other.get(ME, one)[0] for one in header] == [200, 200]
    rest.call("POST", "/api/auth/logout", by=pairs[0]["token"])
    access = other.service._site.resource.routes._admin.access
    access.poll()
    other.settle()
    assert [other.get(ME, one)[0] for one in header] == [401, 200]
    user = rest.call("GET", "/api/users?pageSize=1&page=0")[1]["data"][0]
    rest.call("POST", f"/api/user/{id_of(user)}/password", {})
    body = b'{"refreshToken":"%b"}' % pairs[1]["refreshToken"].encode()
    assert other.post("/api/auth/token", body)[0] == 401
    access.poll()
    other.settle()
    assert [other.get(ME, one)[0] for one in header] == [401, 401]
    other.close()
    rest.close()
    other_store.close()


def test_ended_logins_are_forgotten_when_no_token_outlives_them(rest: Rest) -> None:
    """In memory and in the database."""
    make_user(rest)
    rest.call("POST", "/api/auth/logout", by=log_in(rest)["token"])
    access = rest.service._site.resource.routes._admin.access
    access.maintain()
    rest.settle()
    assert len(access._ended) == len(rest.api.store.read(lambda tx: tx.ended_logins(0))) == 1
    rest.api.now_s += 604_801
    access.maintain()
    rest.settle()
    assert (len(access._ended), rest.api.store.read(lambda tx: tx.ended_logins(0))) == (0, [])
