"""Imports of devices: reading files, planning what they would change, applying it piece by piece, undoing it."""
