"""Workflows: templates, schedules and the runs themselves."""
