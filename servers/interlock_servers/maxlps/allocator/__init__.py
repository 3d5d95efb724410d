"""The power allocator: caps for every GPU that buy the most work within every budget.

Pure functions on arrays, no I/O. `tree` says who hangs under what, `problem` what each GPU is
worth, `waterfill` solves (on `fill`), `dual` says how far the answer can be from the best, `plan`
puts it together, and `baselines` are the policies to beat.
"""
