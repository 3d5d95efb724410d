"""Power allocation against the simple policies, on one generator: what our caps buy, and what not.

`cases` draws sites, `policies` says who competes, `score` runs and judges, `optimum` says what the
best caps gain, `tables` compares with the figures of our power model, `verdict` turns rows into
figures and promises, `pictures` draws.
"""
