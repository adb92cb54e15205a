"""Telling watchers, on every replica: the only user of broadcaster."""
