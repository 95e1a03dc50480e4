"""Secrets at rest: keyed hashes for look-up, authenticated encryption for what must be readable.

The master key lies outside the database (product.md section 5, "Secrets at rest"), so a stolen
database file reveals neither credentials nor provision secrets.
"""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cloud_core.entropy import random_bytes

MASTER_KEY_BYTES = 32
_NONCE_BYTES = 12


class Vault:
    """Hashes and seals with keys derived from one master key of 32 bytes."""

    def __init__(self, master_key: bytes) -> None:
        if len(master_key) != MASTER_KEY_BYTES:
            raise ValueError(f"the master key must have {MASTER_KEY_BYTES} bytes, not {len(master_key)}")
        self._master_key = master_key
        self._hash_key = self.derive("identifier hash")
        self._cipher = AESGCM(self.derive("value encryption"))

    def derive(self, purpose: str, *, length: int = 32) -> bytes:
        """A key of `length` bytes for one purpose; the same purpose gives the same key after a restart."""
        return HKDF(algorithm=SHA256(), length=length, salt=None, info=b"muster " + purpose.encode()).derive(
            self._master_key
        )

    def hash_id(self, text: str) -> bytes:
        """Keyed hash (BLAKE2b, 16 bytes) under which an identifier is stored and looked up."""
        return hashlib.blake2b(text.encode(), key=self._hash_key, digest_size=16).digest()

    def seal(self, plaintext: bytes, *, context: bytes) -> bytes:
        """AES-256-GCM; `context` binds the value to its place, so that rows cannot be swapped."""
        nonce = random_bytes(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, plaintext, context)

    def unseal(self, sealed: bytes, *, context: bytes) -> bytes:
        """Raises cryptography.exceptions.InvalidTag for another key, context or a changed value."""
        return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], context)
