"""The two ways a connection can go wrong: the peer broke the rules, or we did. There is no third."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shared.mqtt.codes import ReasonCode


class LocalProtocolError(Exception):
    """Our own code asked for something the protocol does not allow; a bug, never the peer's doing."""


class RemoteProtocolError(Exception):
    """The peer broke the protocol; the connection is over.

    `reason_code` is what a v5 DISCONNECT or CONNACK would say, `text` one sentence that is safe to log (it
    never quotes the peer's bytes). `packets` are the legal packets that stood before the violation in the
    same chunk, so that they are not lost because of what follows them: all of them from a `Decoder`, those
    its caller must act upon from a `ServerConnection`.
    """

    def __init__(self, reason_code: ReasonCode, text: str) -> None:
        super().__init__(f"{text} (0x{reason_code:02X})")
        self.reason_code = reason_code
        self.text = text
        self.packets: list[Any] = []  # Any: the two sources have different types, see above
