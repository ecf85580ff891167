"""How much one row of a sequence attends to each of its rows, whose keys lie in pages."""
