"""The blocks of a decoder in torch's own operations, for any device; what a CPU runs."""
