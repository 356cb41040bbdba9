"""The HTTP server: dialects, doors, streams."""
