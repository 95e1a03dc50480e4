"""GET of firmware and software: pieces of the assigned package as blocks, nothing kept between requests.

`size` and `chunk` choose a part of the package, or all of it without them; Block2 cuts that part again. A block
is read when it is asked for, so that a download of any size costs no memory here.

Source: wire-contract.md section 4.1; RFC 7959 sections 2.4 and 4.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cloud_core.core.packages import PackagesApi
from cloud_core.model import Identity
from cloud_core.transports.coap.blockwise import exponent_of
from cloud_core.transports.coap.errors import BAD_REQUEST, CONTENT
from cloud_core.transports.coap.requests import OCTETS, Answer, Answered, Request, refusal
from shared.device_paths import Feature
from shared.errors import MalformedRequest, PlatformError
from shared.messages import PackageChunk, PackageKind, PackageRequest

_MAX_NUMBER = 2**31 - 1
_ETAG_BYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A block of a part of the package; the part is all from `start_byte` on where `part_bytes` is 0."""

    kind: PackageKind
    title: str
    version: str
    start_byte: int  # of the part, in the package
    part_bytes: int
    number: int  # of the block, in the part
    exponent: int
    is_blockwise: bool  # whether the request has a Block2 option

    @property
    def is_first_block(self) -> bool:
        return self.number == 0


def wanted(request: Request) -> Piece:
    """What the request asks for. Raises: MalformedRequest."""
    is_firmware = request.path is not None and request.path.feature is Feature.FIRMWARE
    size, chunk = _number(request, "size"), _number(request, "chunk")
    return Piece(
        kind=PackageKind.FIRMWARE if is_firmware else PackageKind.SOFTWARE,
        title=request.query("title") or "",
        version=request.query("version") or "",
        start_byte=size * chunk,
        part_bytes=size,
        number=0 if request.block2 is None else request.block2 >> 4,
        exponent=exponent_of(request.block2),
        is_blockwise=request.block2 is not None,
    )


def _number(request: Request, name: str) -> int:
    text = request.query(name) or "0"
    if not (text.isascii() and text.isdecimal()) or len(text) > 10 or int(text) > _MAX_NUMBER:
        raise MalformedRequest(f"The query `{name}` must be a whole number from 0 to {_MAX_NUMBER}.")
    return int(text)


def fetch(packages: PackagesApi, identity: Identity, piece: Piece, answer: Answer) -> None:
    """Reads the block, in the pieces of a block's size that hold it: one, or two where `size` is no multiple."""
    block_bytes = 1 << piece.exponent + 4
    offset = piece.number * block_bytes
    if offset and piece.part_bytes and offset >= piece.part_bytes:
        answer(_past_the_end())
        return
    first, skipped = divmod(piece.start_byte + offset, block_bytes)
    asked = PackageRequest(
        kind=piece.kind, title=piece.title, version=piece.version, chunk_bytes=block_bytes, chunk=first
    )
    following = PackageRequest(
        kind=piece.kind, title=piece.title, version=piece.version, chunk_bytes=block_bytes, chunk=first + 1
    )

    def joined(start: PackageChunk, rest: bytes) -> None:
        answer(_block(piece, start, (start.data + rest)[skipped : skipped + block_bytes]))

    def got(outcome: PackageChunk | PlatformError) -> None:
        if isinstance(outcome, PlatformError):
            answer(refusal(outcome))
        elif skipped and len(outcome.data) == block_bytes:
            packages.fetch(identity, following, lambda rest: _got_rest(outcome, rest))
        else:
            joined(outcome, b"")

    def _got_rest(start: PackageChunk, rest: PackageChunk | PlatformError) -> None:
        if isinstance(rest, PlatformError):
            answer(refusal(rest))
        else:
            joined(start, rest.data)

    packages.fetch(identity, asked, got)


def _block(piece: Piece, chunk: PackageChunk, data: bytes) -> Answered:
    left = max(0, chunk.total_bytes - piece.start_byte)
    part_bytes = min(left, piece.part_bytes) if piece.part_bytes else left
    offset = piece.number << piece.exponent + 4
    data = data[: max(0, part_bytes - offset)]
    if offset and not data:
        return _past_the_end()
    answered = Answered(CONTENT, data, OCTETS, etag=_etag(chunk))
    has_more = offset + len(data) < part_bytes
    if has_more or piece.is_blockwise:
        answered.block2 = piece.number << 4 | has_more << 3 | piece.exponent
        answered.size2 = part_bytes if piece.is_first_block else None
    return answered


def _etag(chunk: PackageChunk) -> bytes:
    """Tells blocks of different packages apart, should the assignment change during a download."""
    text = f"{chunk.file_name}\0{chunk.content_type}\0{chunk.total_bytes}"
    return hashlib.blake2b(text.encode(), digest_size=_ETAG_BYTES).digest()


def _past_the_end() -> Answered:
    return Answered(BAD_REQUEST, b"There is no such block.")
