"""The rules of the gateway: what happens between a connector and the core, without sockets and databases."""
