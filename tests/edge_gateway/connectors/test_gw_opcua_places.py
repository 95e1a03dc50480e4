"""Paths of BrowseNames and node ids."""

from __future__ import annotations

import pytest

from edge_gateway.connectors.opcua.places import parse_place
from edge_gateway.mapping.problems import MappingProblems


@pytest.mark.parametrize(
    "text", ["ns=2;i=5", "i=2258", "ns=2;s=Line 1/Temp;x=y", "nsu=urn:plant;s=Temp", "ns=1;b=YWI=",
             "ns=3;g=6fa459ea-ee8a-3ca4-894e-db77e160355e"],
)  # fmt: skip
def test_a_node_id_is_taken_as_it_is(text: str) -> None:
    """All forms of node ids are known; slashes in them are no path."""
    assert parse_place(text).node_id == text


def test_a_path_has_a_step_for_each_level() -> None:
    """Captures give parts of BrowseNames, and only fitting names match."""
    place = parse_place("Plant/{line}-{unit}/2:Temp")
    assert place.captures == {"line", "unit"}
    assert not place.is_single
    plant, unit, temp = place.steps
    assert (plant.match("Plant", 7), plant.match("plant", 7)) == ({}, None)
    assert unit.match("a-7", 2) == {"line": "a", "unit": "7"}
    assert unit.match("a7", 2) is None
    assert (temp.match("Temp", 2), temp.match("Temp", 3)) == ({}, None)


def test_signs_of_the_language_can_be_written() -> None:
    """`&` takes the next sign literally, and a capture takes a slash of the BrowseName."""
    place = parse_place("Ratio A&/B/&*/{one}")
    assert [step.name for step in place.steps] == ["Ratio A/B", "*", None]
    assert place.steps[2].match("x/y", 2) == {"one": "x/y"}
    assert parse_place("*").steps[0].match("anything", 0) == {}


def test_a_point_is_the_starting_point_itself() -> None:
    """`.` has no step."""
    assert parse_place(".").steps == ()
    assert parse_place("/Objects/Plant").steps[0].name == "Objects"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "the node is missing"),
        ("ns=2", "is no node id; write ns=2;i=5"),
        ("ns=2;i=x", "is no node id"),
        ("a//b", "has an empty level"),
        ("a/", "has an empty level"),
        ("a/#", "write out each level"),
        ("{rest#}", "write out each level"),
        ("a&", "write && for &"),
        ("{a}/{a}", "stands twice"),
        ("{a b}", "is no capture"),
        ("/".join("abcdefgh" * 5), "more than 32 levels"),
    ],
)
def test_what_is_no_place_is_told(text: str, told: str) -> None:
    """Each mistake has its words."""
    with pytest.raises(MappingProblems, match=told):
        parse_place(text)
