"""The Kubernetes API as a transport: reads kept by list and watch, writes that lock and rehearse.

It knows no component: which kinds there are and what of them matters is a component's to say.
"""
