"""The one connection to the core."""
