"""The doors: they parse, authenticate and render; services decide."""
