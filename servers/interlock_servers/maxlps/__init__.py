"""Power: headroom, allocation and caps, through DPS or through the devices themselves."""

from typing import Final

COMPONENT: Final = "maxlps"
