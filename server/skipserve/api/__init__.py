"""The HTTP front end: forms, routes, errors, streaming. Knows no tensor."""
