"""Messages between the nodes of a cluster: `interface` for the core, one implementation for each way to run."""
