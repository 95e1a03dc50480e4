"""A file out of a `multipart/form-data` body, from disk to disk."""

from __future__ import annotations

from dataclasses import dataclass, field
from tempfile import SpooledTemporaryFile
from typing import IO, Any, BinaryIO, cast

from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.formparser import MultiPartParser
from werkzeug.http import parse_options_header

from shared.errors import InvalidArgument, MalformedRequest, RequestTooLarge

FIELD = "file"
MAX_IN_MEMORY_BYTES = 1_048_576
MAX_OTHER_FIELD_BYTES = 524_288  # werkzeug reads 64 KiB at a time, which must fit
MAX_PARTS = 20
OVERHEAD_BYTES = 1_048_576  # boundaries, headers and other fields around the file


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """The content, at its beginning and to be closed by its owner, and what the client calls it."""

    stream: BinaryIO
    name: str
    content_type: str


@dataclass(frozen=True, slots=True)
class UploadedForm:
    """A form with a file: its other fields, and the file."""

    fields: dict[str, list[str]] = field(repr=False)
    file: UploadedFile


def uploaded_file(body: IO[bytes], content_type: str) -> UploadedFile:
    """The file in the field `file`. Reads all of the body, so call it in a thread.

    Raises: InvalidArgument, MalformedRequest, RequestTooLarge.
    """
    return uploaded_form(body, content_type).file


def uploaded_form(body: IO[bytes], content_type: str) -> UploadedForm:
    """As `uploaded_file`, with the other fields."""
    kind, options = parse_options_header(content_type)
    boundary = options.get("boundary", "")
    if kind != "multipart/form-data" or not boundary.isascii() or not boundary:
        raise InvalidArgument(f"Send multipart/form-data with the file in the field '{FIELD}'")
    parser = MultiPartParser(
        stream_factory=_stream, max_form_memory_size=MAX_OTHER_FIELD_BYTES, max_form_parts=MAX_PARTS
    )
    try:
        fields, files = parser.parse(body, boundary.encode(), None)
    except RequestEntityTooLarge as error:
        raise RequestTooLarge("the form has too many fields, or one that is too long") from error
    except ValueError as error:
        raise MalformedRequest(f"The body is not valid multipart/form-data: {error}") from error
    found = files.get(FIELD)
    if found is None:
        raise InvalidArgument(f"Required request part '{FIELD}' is not present")
    stream = cast(BinaryIO, found.stream)  # what `_stream` gave
    stream.seek(0)
    file = UploadedFile(stream, _last_part(found.filename or ""), found.mimetype or "application/octet-stream")
    return UploadedForm(fields.to_dict(flat=False), file)


def _stream(
    total_content_length: int | None, content_type: str | None, filename: str | None, content_length: int | None = None
) -> Any:  # Any: werkzeug wants an IO[bytes], which typeshed's spooled file is not by name
    return SpooledTemporaryFile(max_size=MAX_IN_MEMORY_BYTES)


def _last_part(name: str) -> str:
    """Without the folders that some clients send along."""
    return name.replace("\\", "/").rsplit("/", 1)[-1]
