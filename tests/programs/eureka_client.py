"""Registers at a Eureka server with py_eureka_client, and reads back what it knows: ADDRESS register|change|cancel."""

import asyncio
import sys

from py_eureka_client import eureka_basic as eureka

address, step = sys.argv[1:]


def instance(number):
    """An instance of LEGACY."""
    return eureka.Instance(
        instanceId=f"legacy-{number}",
        app="LEGACY",
        hostName=f"legacy-{number}.example",
        ipAddr=f"10.0.2.{number}",
        port=eureka.PortWrapper(port=8080, enabled=True),
        securePort=eureka.PortWrapper(port=8443, enabled=False),
        status=eureka.INSTANCE_STATUS_UP,
        overriddenstatus="UNKNOWN",
        dataCenterInfo=eureka.DataCenterInfo(),
        leaseInfo=eureka.LeaseInfo(),
        metadata={"team": "shop"},
    )


def shown(applications):
    """Each instance, with its status and what became of it."""
    return sorted(
        f"{one.instanceId} {one.ipAddr}:{one.port.port} {one.status} {one.actionType}".strip()
        for application in applications.applications
        for one in application.instances
    )


async def check(count):
    """What there is, by its hash, and that what became another leads there."""
    every = await eureka.get_applications(address)
    changes = await eureka.get_delta(address)
    assert every.appsHashcode == changes.appsHashcode == count, (every.appsHashcode, changes.appsHashcode)
    return shown(every), shown(changes)


async def main():
    """One step of an instance's life."""
    if step == "register":
        for number in (1, 2):
            await eureka.register(address, instance(number))
        await eureka.send_heartbeat(address, "LEGACY", "legacy-1", 1)
        every, changes = await check("UP_2_")
        assert len(every) == len(changes) == 2 and changes[0].endswith(" UP ADDED"), (every, changes)
        try:
            await eureka.send_heartbeat(address, "LEGACY", "stranger", 1)
        except Exception:  # The client has none of its own.
            return
        sys.exit("a heartbeat of nobody is taken")
    if step == "change":
        await eureka.status_update(address, "LEGACY", "legacy-1", 2, eureka.INSTANCE_STATUS_OUT_OF_SERVICE)
        await eureka.cancel(address, "LEGACY", "legacy-2")
        every, _ = await check("OUT_OF_SERVICE_1_")
        assert every == ["legacy-1 10.0.2.1:8080 OUT_OF_SERVICE ADDED"], every
    if step == "cancel":
        await eureka.cancel(address, "LEGACY", "legacy-1")
        every, changes = await check("")
        assert every == [] and changes[-1].endswith("DELETED"), (every, changes)


asyncio.run(main())
print("as it should be")
