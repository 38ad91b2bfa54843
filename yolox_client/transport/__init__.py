"""How calls are made: written, sent, repeated, and their answers read."""
