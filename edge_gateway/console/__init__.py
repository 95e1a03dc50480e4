"""Commands for field engineers, and the local page."""
