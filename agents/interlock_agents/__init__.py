"""Agents observe, plan, propose and verify through MCP; they hold no component credentials."""
