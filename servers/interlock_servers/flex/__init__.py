"""DSX Flex: the grid's load targets on the bus, how the site answers them, what was breached."""

COMPONENT = "flex"
