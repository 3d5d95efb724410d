"""DSX Flex: the grid's load targets on the bus, how the site answers them, and what was breached."""

COMPONENT = "flex"
