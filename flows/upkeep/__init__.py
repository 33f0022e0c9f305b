"""The machine and the store: checks, room, weights, servers, training."""
