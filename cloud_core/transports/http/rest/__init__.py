"""The administration's REST: ThingsBoard's calls and ours, one route class a topic."""
