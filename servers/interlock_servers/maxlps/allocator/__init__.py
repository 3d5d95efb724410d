"""The power allocator: caps for every GPU that buy the most work within every budget.

Pure functions on arrays, no I/O. `tree` says who hangs under what, `problem` what each GPU is
worth, `limits` what each node may draw. `waterfill` solves (on `fill`), `gang` does for synchronous
jobs, `groups` for limits that cut across the tree; `dual` and `gang_dual` say how far an answer can
be from the best. `plan` puts it together, `misfit` says what does not fit, and `infeasible` the
cheapest work to pause or move. `what_if` asks about a `site`, `refit` learns the curves,
`provision` counts what a budget could hold, and `baselines` are the policies to beat.
"""
