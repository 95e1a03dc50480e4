"""Commands to devices and calls from them."""
