"""Other MCP servers behind our guard: a pinned tool list that a person approved, or nothing."""
