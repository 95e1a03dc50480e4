"""Provision keys: several a profile, budgets, rotation with adoption, approvals."""
