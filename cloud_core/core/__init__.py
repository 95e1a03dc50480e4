"""The rules. Knows `storage.interface`, `model` and `shared`; no transport, no SQL, no reactor."""
