"""What operators see: Prometheus metrics."""
