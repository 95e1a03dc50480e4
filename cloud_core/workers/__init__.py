"""Several processes of one core on one machine: a supervisor that opens what they share and keeps them running."""
