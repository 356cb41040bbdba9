"""Requests as they come: decoded as Go decodes them, checked, named."""
