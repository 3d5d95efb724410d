"""The Kubernetes API: what speaks it, and a server of our own that answers."""
