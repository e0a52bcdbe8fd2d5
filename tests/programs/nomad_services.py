"""Asks for Nomad's services with python-nomad: ADDRESS TOKEN."""

import sys
import time

from nomad.api.base import Requester
from nomad.api.exceptions import BaseNomadException, URLNotAuthorizedNomadException

address, token = sys.argv[1:]


class Services(Requester):
    """Which services there are."""

    ENDPOINT = "services"


class Service(Requester):
    """How one of them is."""

    ENDPOINT = "service"


def asked(kind, *path, **parameters):
    """What an endpoint answers, and its index."""
    settings = {"address": address, "token": token, "timeout": 10} | parameters.pop("settings", {})
    response = kind(**settings).request(*path, method="get", params=parameters)
    return response.json(), int(response.headers["X-Nomad-Index"])


def refused(error, **settings):
    """That a question with such settings is refused."""
    try:
        asked(Services, settings=settings)
    except error:
        return
    sys.exit(f"{settings} is not refused")


listed, index = asked(Services)
assert listed == [{"Namespace": "default", "Services": [{"ServiceName": "cart", "Tags": ["mesh", "v2"]}]}], listed
every, _ = asked(Services, namespace="*")
assert [one["Namespace"] for one in every] == ["default", "shop"], every
[cart], _ = asked(Service, "cart")
assert (cart["Address"], cart["Port"], cart["Tags"]) == ("10.0.1.1", 8080, ["mesh", "v2"]), cart
assert asked(Service, "cart", namespace="shop")[0] == []
began = time.monotonic()
_, same = asked(Services, index=index, wait="500ms")
assert same == index and time.monotonic() - began >= 0.5, "it did not wait"
_, now = asked(Services, index=index - 1, wait="60s")
assert now == index, "it waited for what is there"
refused(URLNotAuthorizedNomadException, token="wrong")
refused(BaseNomadException, region="elsewhere")
print("as it should be")
