"""Every code of a `Reason`: what it means, and what would change the decision. `llmos why` prints the second.

A decision with a code that is not here fails the tests. A reason that knows better what would change it, with its
numbers, carries that in `change` itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Code(NamedTuple):
    """One code."""

    means: str
    change: str
    """What would change it, as an instruction; empty where nothing has to change."""


CODES: Mapping[str, Code] = {
    # ---- memory
    "memory.admitted": Code("The bytes were free and are promised.", ""),
    "memory.refused": Code(
        "Not even eviction would free the bytes that are needed.",
        "unload or unpin what holds the bytes, take a smaller max_context or a quantized version, or another device",
    ),
    "memory.excess": Code(
        "A model gave way since other programs took memory that was promised to models.",
        "leave more to others: [memory] reserve_bytes; or end what takes the memory",
    ),
    "memory.waits": Code(
        "A model waits until running requests of others have ended, which then make room for it.",
        "a smaller or quantized model needs no turn; llmos sleep NAME of another one, or another device",
    ),
    "memory.overrun": Code(
        "A device ran out of memory while a request ran: the plan of its model was too small; the next one is larger.",
        "load the model again, so that it is planned with what was measured; or a smaller max_context",
    ),
    "plan.fits": Code("The model fits as it is planned.", ""),
    "plan.evicts": Code(
        "The model would fit when others sleep, chosen by the policy of eviction.",
        "pin what should stay, a smaller max_context or a quantized version, or another device",
    ),
    "plan.short": Code(
        "The model would not fit, whatever sleeps.",
        "a quantized version or a smaller max_context, unload or unpin what holds the bytes, or another device",
    ),
    "plan.corrected": Code("A plan counts in what the model took more than planned when it ran before.", ""),
    # ---- devices and drivers
    "device.placed": Code("Policy chose the device, since none was named.", "name one: load --device NAME"),
    "device.fallback": Code(
        "A lesser device was chosen, since a better one is down.", "make the better one work and load the model again"
    ),
    "device.limit": Code(
        "The bytes of a device that models may take were set.", "the device's action limit; 0 ends it"
    ),
    "device.shares": Code(
        "How the models on a device share its time, and work classes and hosts beside them.",
        "weights of users stand in [policy], minima of work classes in [limits] batch_share and background_share",
    ),
    "driver.restart": Code(
        "A driver's process ended and is started again.", "the cause stands in the text; llmos logs shows its output"
    ),
    "driver.failed": Code(
        "A driver ended too often within its period and is not started again by itself.",
        "remove the cause, then: llmos driver reset NAME",
    ),
    "driver.absent": Code(
        "The device that a driver is for is not in this machine.", "drivers.load in the configuration names the drivers"
    ),
    "driver.lost": Code(
        "A model's driver ended; what was awake is loaded again when the driver is back.", "see llmos why of the driver"
    ),
    "overdue": Code(
        "The work loop of a driver gave no sign of life for as long as it had announced.",
        "it is killed when it stays silent; another model or a smaller batch if that comes again",
    ),
    "service.settings": Code("A service could not be started with its settings.", "correct them and send SIGHUP"),
    # ---- models
    "load.shared": Code("The same load was under way already; both wait for it.", ""),
    "load.failed": Code("A model could not be loaded.", "the text says why; llmos show NAME --plan DEVICE"),
    "model.waking": Code(
        "A model that was not on its device is made ready.", "pin it, or give it a longer keep_alive, so that it stays"
    ),
    "model.asleep": Code("Somebody put a model to sleep.", "llmos wake NAME"),
    "model.cold": Code(
        "A model is in no memory: it slept when its driver ended, or found no room. The next request loads it.",
        "llmos wake NAME loads it now; llmos show NAME --plan DEVICE says what it needs",
    ),
    "model.settings": Code(
        "A load of what was loaded already changed how long it stays, or could not.",
        "llmos pin, unpin or keep-alive NAME; unload it to load it with another group",
    ),
    "model.idle": Code(
        "A model was not used for its keep-alive time.", "llmos pin NAME, or load it with a longer keep_alive"
    ),
    "model.evicted": Code(
        "A model gave way to another one that needed the bytes.",
        "llmos pin NAME keeps it; a smaller or quantized model, or less max_context, needs fewer bytes",
    ),
    "model.draining": Code(
        "A busy model starts no more requests, since another one waits for its bytes; it sleeps when it is idle.",
        "llmos pin NAME keeps it; fewer or smaller models at a time",
    ),
    "tune.promoted": Code("What came of tuning is what its name means now.", "llmos rollback NAME"),
    "tune.candidate": Code(
        "What came of tuning was not good enough by the recipe's promote_if, and is stored beside what its name means.",
        "llmos rollback NAME@VERSION makes it current all the same; other data, more steps, or another promote_if",
    ),
    "tune.unserved": Code(
        "A model that was loaded by the name of a tuned result still serves the version before.",
        "llmos load PATH --name NAME --replace",
    ),
    "model.swapped": Code("A model was exchanged for another version.", "llmos rollback NAME"),
    "rung": Code(
        "Why a model runs on this rung of the engine's runners and not on a faster one.",
        "load it without the option that the text names, or on a device that offers the kernels",
    ),
    # ---- alerts
    "alert.raised": Code(
        "A value was beyond the bound of a rule for long enough.", "the rule stands in the configuration: [[alerts]]"
    ),
    "alert.cleared": Code("A raised alert is well again.", ""),
    "advice.given": Code("A rule of the advisor found something that could be better.", "see llmos doctor"),
    # ---- requests
    "request.queued": Code("A request was accepted and waits.", "a higher work class or priority starts earlier"),
    "request.waits": Code("A request still waits for a free slot.", "a higher work class or priority starts earlier"),
    "request.start": Code("A request was started.", ""),
    "request.hopeless": Code(
        "The turn of a request came when it could no longer be answered before its deadline, while others waited.",
        "give it more time, or come when less waits; a higher work class or priority starts earlier",
    ),
    "request.expired": Code("The deadline of a request passed.", "give it more time: timeout or deadline"),
    "request.done": Code("A request was answered.", ""),
    "request.refused": Code(
        "A request was not taken: a limit, a quota, a right, or no room.",
        "the text says what to try; a later try may find room",
    ),
    "request.failed": Code("A request ended with an error while it ran.", "the text says why; llmos logs has the rest"),
    "request.cancelled": Code("A request was cancelled.", ""),
    "request.preempted": Code(
        "A running request of a lower work class gives way to one of a higher class; it goes on by itself.",
        "send it with a higher work class, or give its class a larger minimum: limits.batch_share",
    ),
    "request.repeated": Code("A driver ended before it delivered anything; the request ran again.", ""),
    "quota.over": Code(
        "A quota of a user, a tenant or a program is used up.",
        "wait as long as retry_after_ms says, or raise the limit in [policy]; over_quota = \"wait\" lets requests wait",
    ),
    "quota.waits": Code(
        "A request is over a quota and waits, as policy says.", "raise the limit in [policy], or ask for less at once"
    ),
    # ---- tasks
    "task.paused": Code("A task was paused.", "llmos resume ID"),
    "task.running": Code("A task was resumed.", ""),
    "task.ended": Code("The process of a task has ended.", ""),
}


def change(code: str) -> str:
    """What would change a decision of this code; empty for one that is not known."""
    known = CODES.get(code)
    return known.change if known is not None else ""
