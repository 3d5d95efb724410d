"""Scenarios: stories of a factory that can be run, watched and scored."""
