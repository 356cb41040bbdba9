"""Where models come from: the Hub, a Python package, a local file."""
