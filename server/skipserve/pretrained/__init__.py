"""Models whose language model comes as a package and whose trained part ships with skipserve."""
