"""`cloud-core demo`: the main job end to end, shown and checked from outside."""
