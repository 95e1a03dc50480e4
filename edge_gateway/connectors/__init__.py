"""South-bound protocols, one folder or module each; they know `interface` and `mapping`, never each other."""
