"""The shapes of the schema."""
