"""Published data sets, read from the files that their authors publish: one module a data set."""
