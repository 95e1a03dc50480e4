"""What survives a power cut: the spool, the sub-devices, the gateway's own credentials."""
