"""The Grafana dashboards: `promql` asks, `layout` draws, `overview` and `comparison` say what."""
