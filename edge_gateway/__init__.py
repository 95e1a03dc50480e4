"""The edge gateway: registers the devices behind it and relays their data."""
