"""Edges driven by time: they call services like any client."""
