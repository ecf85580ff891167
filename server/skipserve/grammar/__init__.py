"""What shape an answer must have: as it is asked for, compiled, and token by token."""
