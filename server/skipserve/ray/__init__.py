"""Many engines behind a front end, on Ray Serve: placing, routing, both ends of a handle."""
