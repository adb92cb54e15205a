"""Workflows: definitions and their templates, runs, the engine that carries runs on, and schedules."""
