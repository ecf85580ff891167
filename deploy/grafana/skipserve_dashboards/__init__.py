"""The Grafana dashboards: `promql` asks, `layout` draws, `variables` choose; the rest says what."""
