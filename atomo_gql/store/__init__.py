"""The only door to PostgreSQL: one module per file of `sql/queries`, one function per statement."""
