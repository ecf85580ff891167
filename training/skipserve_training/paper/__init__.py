"""The paper's tables in miniature: a grid of cells, a record of each, and a page of all."""
