"""The MCP surface: how a server is built and served, whatever it offers; it knows no component."""
