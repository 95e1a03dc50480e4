"""Documents of time series: one for each (device, ts), a map from key number to value."""

from __future__ import annotations

from shared.values import decode_document, decode_value, encode_document, encode_value

__all__ = ["decode_document", "decode_value", "encode_document", "encode_value", "merge_documents"]


def merge_documents(stored: bytes, added: bytes) -> bytes:
    """Both documents of one (device, ts); where a key is in both, the added value wins."""
    if stored == added:
        return stored  # the same message again
    return encode_document(decode_document(stored) | decode_document(added))
