"""One MCP server per component of the AI factory, behind the guard, with a twin on the wire."""
