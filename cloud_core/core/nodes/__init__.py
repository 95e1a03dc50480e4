"""What a node does for and with the others of its cluster."""
