"""How answers are scored: one module a metric, each as its authors publish it."""
