"""Adapters that translate one protocol each into calls of `core.api`; they never import each other."""
