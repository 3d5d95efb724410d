"""An API server inside our process: the kinds that we touch, for the demo and for fast evals."""
