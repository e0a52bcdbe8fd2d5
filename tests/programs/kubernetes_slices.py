"""Lists and watches EndpointSlices with the client of the Kubernetes project: ADDRESS TOKEN all|gone."""

import sys

from kubernetes import client, watch

address, token, step = sys.argv[1:]
settings = client.Configuration()
settings.host = address
settings.api_key = {"authorization": f"Bearer {token}"}
api = client.DiscoveryV1Api(client.ApiClient(settings))


def watched(**parameters):
    """What a watch of a second tells."""
    stream = watch.Watch().stream(api.list_endpoint_slice_for_all_namespaces, timeout_seconds=1, **parameters)
    return [(event["type"], event["object"]) for event in stream]


if step == "all":
    names, more = [], None
    while True:
        page = api.list_endpoint_slice_for_all_namespaces(limit=2, _continue=more)
        names += [f"{one.metadata.namespace}/{one.metadata.name}" for one in page.items]
        more = page.metadata._continue
        if not more:
            break
    assert names == ["default/c", "shop/a", "shop/b"], names
    own = api.list_namespaced_endpoint_slice("default", label_selector="team=shop").items
    [one] = own
    endpoint = one.endpoints[0]
    assert (one.address_type, one.ports[0].port, one.ports[0].app_protocol) == ("IPv4", 80, "http"), one
    assert (endpoint.addresses, endpoint.conditions.ready, endpoint.zone) == (["10.0.3.3"], True, "rack-1"), endpoint
    now = int(page.metadata.resource_version)
    told = [(kind, one.metadata.name) for kind, one in watched(resource_version=str(now - 1))]
    assert told == [("ADDED", "c")], told
    kinds = {kind for kind, _ in watched(resource_version=str(now), allow_watch_bookmarks=True)}
    assert kinds == {"BOOKMARK"}, kinds
if step == "gone":
    for version in ("11", "1"):
        try:
            watched(resource_version=version)
        except client.ApiException as error:
            assert error.status == 410, error
        else:
            sys.exit("what is no longer kept is told")
    settings.api_key = {"authorization": "Bearer wrong"}
    try:
        api.list_endpoint_slice_for_all_namespaces()
    except client.ApiException as error:
        assert error.status == 401, error
    else:
        sys.exit("a wrong token is taken")
print("as it should be")
