"""NVSentinel: faulty nodes of a Kubernetes cluster, what is done about them, and what may be."""

COMPONENT = "nvsentinel"
