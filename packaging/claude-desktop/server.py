"""What the bundle starts where `uvx` is not used: Interlock, if this Python has it installed."""

import sys

from interlock_console.start import main

if __name__ == "__main__":
    sys.argv[1:] = ["serve", "--stdio", *sys.argv[1:]]
    main()
