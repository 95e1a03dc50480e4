"""Generation of tokens, keys, secrets, names and references: cryptographically random, one place."""

from __future__ import annotations

import string
import time
from uuid import UUID

from cloud_core.entropy import random_bits

GENERATED_CHARS = 20  # wire-contract.md appendix B
_ALPHANUMERICS = string.ascii_letters + string.digits
_SECRETS = len(_ALPHANUMERICS) ** GENERATED_CHARS
_SECRET_BITS = _SECRETS.bit_length()
_REFERENCE_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford: nothing that is misread aloud
_REFERENCE_CHARS = 10  # 50 bits: unique among the 100,000 attempts that are kept


def new_secret() -> str:
    """20 random alphanumerics (119 bits): access token, provision key or secret, device name."""
    number = random_bits(_SECRET_BITS)  # one draw: twenty of `secrets.choice` cost more than storing a device
    while number >= _SECRETS:  # above it some characters would be likelier than others
        number = random_bits(_SECRET_BITS)
    characters = []
    for _ in range(GENERATED_CHARS):
        number, place = divmod(number, 62)
        characters.append(_ALPHANUMERICS[place])
    return "".join(characters)


def new_reference() -> str:
    """Short reference of one refusal, for people to read out: `7K2MQ-9XHTR`."""
    number = random_bits(5 * _REFERENCE_CHARS)
    text = "".join(_REFERENCE_ALPHABET[(number >> 5 * place) & 31] for place in range(_REFERENCE_CHARS))
    return f"{text[:5]}-{text[5:]}"


def new_attempt_id() -> str:
    """Reference of a provision attempt, made at its receipt: `0R2J-7MQ4T-8HXK9`.

    Microseconds in front and random bits behind: ordered by time, so that index entries share pages (see `new_uuid`).
    """
    number = (time.time_ns() // 1000 & (1 << 48) - 1) << 22 | random_bits(22)
    text = "".join([_REFERENCE_ALPHABET[(number >> place) & 31] for place in range(65, -1, -5)])
    return f"{text[:4]}-{text[4:9]}-{text[9:]}"


def new_uuid(now_ms: int) -> UUID:
    """A version 7 UUID (RFC 9562 section 5.7): ordered by time, so that index entries share pages.

    Random ones dirty a page of the index for each device of a batch, and the pages are what a commit costs.
    """
    number = (now_ms & (1 << 48) - 1) << 80 | 7 << 76 | random_bits(12) << 64 | 2 << 62 | random_bits(62)
    return UUID(int=number)
