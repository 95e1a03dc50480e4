"""The table of who lives."""

from __future__ import annotations

from cloud_core.fabric.membership import MAX_GOODBYES, MAX_NODES, Membership


def test_a_node_is_new_once() -> None:
    """Its first sign of life says so, the others do not."""
    members = Membership(gone_after_s=3.0)
    assert [members.heard("a", 0.0), members.heard("a", 1.0), members.heard("b", 1.0)] == [True, False, True]
    assert members.others == {"a", "b"}


def test_silence_is_counted_from_the_last_sign_of_life() -> None:
    """Up to the span it is there, beyond it is gone, once; afterwards it may come back."""
    members = Membership(gone_after_s=3.0)
    members.heard("a", 0.0)
    members.heard("b", 0.0)
    members.heard("a", 2.0)
    assert (members.silent(3.0), members.silent(3.1), members.silent(3.2)) == ([], ["b"], [])
    assert members.others == {"a"}
    assert members.heard("b", 4.0)


def test_nobody_is_silent_who_could_not_be_heard() -> None:
    """After this process stood still, silence counts from then."""
    members = Membership(gone_after_s=3.0)
    members.heard("a", 0.0)
    members.forgive(60.0)
    assert (members.silent(63.0), members.silent(63.1)) == ([], ["a"])


def test_a_goodbye_is_for_good() -> None:
    """A late message of the node does not bring it back; it is said once."""
    members = Membership(gone_after_s=3.0)
    members.heard("a", 0.0)
    assert (members.goodbye("a"), members.goodbye("a"), members.heard("a", 1.0)) == (True, False, False)
    assert members.has_said_goodbye("a") and not members.others


def test_all_are_gone_at_once() -> None:
    """With the connection; they may be heard again."""
    members = Membership(gone_after_s=3.0)
    members.heard("a", 0.0)
    members.heard("b", 0.0)
    assert (members.clear(), members.others, members.heard("a", 0.1)) == (["a", "b"], frozenset(), True)


def test_what_is_remembered_has_bounds() -> None:
    """Neither many names nor many goodbyes fill the memory."""
    members = Membership(gone_after_s=3.0)
    for number in range(MAX_NODES + 10):
        members.heard(f"n{number}", 0.0)
    assert len(members.others) == MAX_NODES
    for number in range(MAX_GOODBYES + 10):
        members.goodbye(f"g{number}")
    assert not members.has_said_goodbye("g9") and members.has_said_goodbye("g10")
