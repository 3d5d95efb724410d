"""DSX Exchange: the factory's points on the bus, what they mean and how old they are."""

COMPONENT = "exchange"
