"""Operators and their rights: users, roles, tenants, customers, sessions, API keys, audit."""
