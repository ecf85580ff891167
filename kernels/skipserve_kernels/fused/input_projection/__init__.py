"""What the inputs of a decoder block are multiplied by: queries, keys, values and the FFN."""
