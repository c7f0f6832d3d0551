"""The table that the modules of this package fill, one entry for each call."""

from ..dispatch import Handlers

HANDLERS = Handlers()
implements = HANDLERS.implements
