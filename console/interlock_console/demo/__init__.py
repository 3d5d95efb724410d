"""`interlock demo`: the grid cut, shown while it runs and accounted for at the end."""
