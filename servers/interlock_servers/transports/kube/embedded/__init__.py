"""A Kubernetes API server inside the event loop, held to what a real one promises."""

from interlock_servers.transports.kube.embedded.server import EmbeddedKube

__all__ = ["EmbeddedKube"]
