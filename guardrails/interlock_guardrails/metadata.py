"""The one collection of tables of the store; each module of the room adds its own to it."""

from sqlalchemy import MetaData

metadata = MetaData()
