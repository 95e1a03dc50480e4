"""Who may use the local door."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_gateway.console.access import MAX_SESSIONS, SESSION_S, Access, TooSoon, WrongPin


class Seconds:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def seconds() -> Seconds:
    return Seconds()


@pytest.fixture
def access(tmp_path: Path, seconds: Seconds) -> Access:
    access = Access(tmp_path, seconds)
    access.open()
    return access


def pin_of(folder: Path) -> str:
    return (folder / "local-pin").read_text().strip()


def wrong_of(folder: Path) -> str:
    return f"{(int(pin_of(folder)) + 1) % 1_000_000:06}"


def test_secrets_are_made_once_and_for_the_owner_alone(tmp_path: Path, access: Access) -> None:
    """Token and PIN outlive a restart, and nobody else may read them."""
    first = [(tmp_path / name).read_text() for name in ("local-token", "local-pin")]
    Access(tmp_path, Seconds()).open()
    assert [(tmp_path / name).read_text() for name in ("local-token", "local-pin")] == first
    assert {(tmp_path / name).stat().st_mode & 0o777 for name in ("local-token", "local-pin")} == {0o600}


def test_a_damaged_secret_is_replaced(tmp_path: Path) -> None:
    """An empty token would let everybody in."""
    (tmp_path / "local-token").write_text("\n")
    (tmp_path / "local-pin").write_text("12")
    access = Access(tmp_path, Seconds())
    access.open()
    assert not access.is_token("")
    assert len(pin_of(tmp_path)) == 6


def test_before_the_start_nothing_is_right(tmp_path: Path) -> None:
    """Without secrets neither token nor PIN can match."""
    access = Access(tmp_path, Seconds())
    assert not access.is_token("")
    with pytest.raises(WrongPin):
        access.log_in("")


def test_the_right_pin_opens_a_session_that_ends(tmp_path: Path, access: Access, seconds: Seconds) -> None:
    """A session holds for half a day, until the log-out at the latest."""
    pin = pin_of(tmp_path)
    session, other = access.log_in(f"{pin[:3]} {pin[3:]}"), access.log_in(pin)
    assert access.is_session(session)
    access.log_out(other)
    assert not access.is_session(other)
    seconds.now_s = SESSION_S
    assert not access.is_session(session)


def test_sessions_are_bounded(tmp_path: Path, access: Access) -> None:
    """The oldest session makes room for the newest."""
    sessions = [access.log_in(pin_of(tmp_path)) for _ in range(MAX_SESSIONS + 1)]
    assert [access.is_session(one) for one in sessions] == [False, *[True] * MAX_SESSIONS]


def test_guessing_gets_slower_and_slower(tmp_path: Path, access: Access, seconds: Seconds) -> None:
    """After five wrong PINs each further one costs twice the time of the last, up to ten minutes."""
    waits = []
    for _ in range(14):
        with pytest.raises(WrongPin) as refused:
            access.log_in(wrong_of(tmp_path))
        waits.append(refused.value.wait_s)
        seconds.now_s += refused.value.wait_s
    assert waits == [0, 0, 0, 0, 5, 10, 20, 40, 80, 160, 320, 600, 600, 600]


def test_during_the_delay_not_even_the_right_pin_counts(tmp_path: Path, access: Access, seconds: Seconds) -> None:
    """Otherwise the delay would tell nothing to a guesser; afterwards the right PIN ends the counting."""
    for _ in range(5):
        with pytest.raises(WrongPin):
            access.log_in(wrong_of(tmp_path))
    with pytest.raises(TooSoon) as refused:
        access.log_in(pin_of(tmp_path))
    assert refused.value.wait_s == 5
    seconds.now_s = 5
    assert access.is_session(access.log_in(pin_of(tmp_path)))
    with pytest.raises(WrongPin) as wrong:
        access.log_in(wrong_of(tmp_path))
    assert wrong.value.wait_s == 0


@pytest.mark.parametrize("presented", ["", "x", "é" * 40, "\ud800"])
def test_strange_secrets_are_wrong_and_no_error(access: Access, presented: str) -> None:
    """Whatever bytes come, the answer is no."""
    assert not access.is_token(presented)
    with pytest.raises(WrongPin):
        access.log_in(presented)
