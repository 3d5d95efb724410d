"""Where the command begins: everything is loaded before the collector of garbage may look at it.

A client waits for a server over stdio to start. Nothing that is loaded here is ever garbage, and
looking for some, again and again, is a sixth of that time.
"""

import gc


def main() -> None:
    """Run the command line."""
    gc.disable()
    from interlock_console.cli import main as command

    gc.freeze()
    gc.enable()
    command()
