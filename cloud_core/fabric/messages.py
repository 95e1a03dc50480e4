"""What travels between nodes: an envelope with the messages that one node told in one go. No I/O."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from cloud_core.fabric.interface import MAX_BODY_BYTES, Body

VERSION = 1
# Names are part of subjects: neither dots, blanks nor wildcards.
NAME = r"^[A-Za-z0-9_-]{1,100}$"
MAX_KIND_CHARACTERS = 64

Message = tuple[str, Any]
"""Kind and body."""

_encode = msgspec.msgpack.Encoder().encode


class Untellable(Exception):
    """`str()` is one sentence, without what the body holds."""


class Malformed(Exception):
    """Somebody who is no node, or one of another release; `str()` is one sentence."""


class Envelope(msgspec.Struct, array_like=True, frozen=True):
    """`number` counts the envelopes of a sender to all, and those to this node, each by itself."""

    version: int
    sender: Annotated[str, msgspec.Meta(pattern=NAME)]
    number: Annotated[int, msgspec.Meta(ge=0)]
    messages: list[tuple[Annotated[str, msgspec.Meta(max_length=MAX_KIND_CHARACTERS)], Any]]


_decode = msgspec.msgpack.Decoder(Envelope).decode


def encoded(body: Body, max_bytes: int = MAX_BODY_BYTES) -> bytes:
    """A body as it is now: what its owner changes later does not travel. Raises: Untellable."""
    try:
        packed = _encode(body)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise Untellable(f"MessagePack does not carry it: {type(error).__name__}.") from error
    if len(packed) > max_bytes:
        raise Untellable(f"It has {len(packed)} bytes and may have {max_bytes}.")
    return packed


def decoded(packed: bytes) -> Body:
    """The other way, for what `encoded` has made."""
    return msgspec.msgpack.decode(packed)


def sealed(sender: str, number: int, messages: list[tuple[str, bytes]]) -> bytes:
    """An envelope of kinds and encoded bodies."""
    return _encode(Envelope(VERSION, sender, number, [(kind, msgspec.Raw(body)) for kind, body in messages]))


def opened(packed: bytes) -> Envelope:
    """What somebody sent. Raises: Malformed."""
    try:
        envelope = _decode(packed)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise Malformed("It is no envelope of a node.") from error
    if envelope.version != VERSION:
        raise Malformed(f"It is of version {envelope.version}, and this release speaks {VERSION}.")
    return envelope
