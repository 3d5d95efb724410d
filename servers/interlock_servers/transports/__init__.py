"""Shared clients of the wire protocols; they know no component."""
