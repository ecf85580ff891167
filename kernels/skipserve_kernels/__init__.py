"""How one block's operations run on a device. Knows tensors and row indexes, never a policy."""
