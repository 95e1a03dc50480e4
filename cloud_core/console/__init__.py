"""The command line `cloud-core`: one file a topic; they talk REST to a running core."""
