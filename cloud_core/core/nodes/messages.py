"""What nodes tell each other, as values: checked when it comes in, so that a node of another version breaks nothing.

Bodies are arrays in the order of the members. A later version may add members behind the last one, with defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import msgspec
from twisted.logger import Logger

from cloud_core.fabric.interface import Body, Fabric

log = Logger()
MAX_COMPLAINED = 1_000  # pairs of node and kind whose nonsense is remembered as logged
T = TypeVar("T")


class Message(msgspec.Struct, array_like=True):
    """Base of what is told."""


def body_of(message: Message) -> Body:
    """As a fabric carries it."""
    return msgspec.to_builtins(message, builtin_types=(bytes,))


def hear(fabric: Fabric, kind: str, shape: type[T], heard: Callable[[str, T], None]) -> None:
    """`heard(sender, message)` for each message of a kind that has the shape; others are ignored, and logged once."""
    complained: set[str] = set()

    def arrived(sender: str, body: Body) -> None:
        try:
            message = msgspec.convert(body, shape)
        except msgspec.ValidationError as error:
            if sender not in complained and len(complained) < MAX_COMPLAINED:
                complained.add(sender)
                log.warn(
                    "Node {node} tells '{kind}' in a way that is not understood here, which is ignored: {error}."
                    " Do all nodes run the same version?",
                    node=sender, kind=kind, error=str(error),
                )  # fmt: skip
            return
        heard(sender, message)

    fabric.hear(kind, arrived)


def parts_of(entries: Sequence[Any], most: int) -> Iterator[Sequence[Any]]:
    """At most so many at a time."""
    for at in range(0, len(entries), most):
        yield entries[at : at + most]
