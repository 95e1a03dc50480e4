"""CoAP: the device API under `/api/v1` on aiocoap."""
