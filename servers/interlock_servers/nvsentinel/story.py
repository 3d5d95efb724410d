"""One node explained: asked of the API server in that moment, beside what the caches know."""

from interlock_servers.nvsentinel import COMPONENT
from interlock_servers.nvsentinel.client import Look, NvsentinelClient
from interlock_servers.nvsentinel.installed import installed
from interlock_servers.nvsentinel.models import Node, Pod
from interlock_servers.nvsentinel.next_step import next_of, stage_of
from interlock_servers.nvsentinel.reading import gpu_uuids
from interlock_servers.nvsentinel.stuck import findings
from interlock_servers.nvsentinel.views import EventView, FaultView, NodeStory, PodView
from interlock_servers.paging import Place, only, paged
from interlock_servers.transports.kube.leases import Held

MOST = 20  # of faults, events and requests in one answer


async def story(
    client: NvsentinelClient,
    node_id: str,
    *,
    limit: int,
    cursor: str | None,
    fields: list[str] | None,
) -> NodeStory:
    """All that there is to say about one node.

    Raises:
        NotFoundError: there is no such node.
        UnavailableError: the API server does not answer.
    """
    look = await client.look(node_id)
    node, now = look.node, installed(client)
    pods = sorted(
        (pod for pod in look.pods if client.is_work(pod)), key=lambda pod: (pod.namespace, pod.name)
    )
    requests = client.requests_of(node_id)
    place = Place.of("explain_node", node_id=node_id)
    page, more = paged(pods, _pod_id, place, limit=limit, cursor=cursor)
    events = None if node.quarantine is None else node.quarantine.events
    return NodeStory(
        observed_at=look.at,
        origin=COMPONENT,
        stale_since=client.observed(*client.requests.values())[1],
        unknown=client.unknown(client.modules, client.budgets, *client.requests.values()),
        node_id=node.name,
        stage=stage_of(node, now),
        next=next_of(node, requests, now, len(pods)),
        ready=node.ready,
        cordoned_by=node.cordoned_by,
        cordon_writers=None if node.cordon_writers is None else list(node.cordon_writers),
        since=node.cordoned_at,
        faults=[
            FaultView(check=one.type, since=one.since, message=one.message or None)
            for one in node.faults[:MOST]
        ],
        unsure=list(node.unsure) or None,
        events=None
        if events is None
        else [
            EventView(
                check=one.check,
                agent=one.agent or None,
                action=one.action,
                fatal=one.is_fatal,
                entities=[f"{kind} {value}" for kind, value in one.entities] or None,
                message=one.message or None,
            )
            for one in events[:MOST]
        ],
        events_why=(node.quarantine.why or None) if node.quarantine else None,
        opted_out=list(node.opted_out) or None,
        lease=lease_view(look.lease),
        requests=[f"{one.kind} {one.name}: {one.outcome}" for one in requests[:MOST]] or None,
        stuck=[f"{one.what}: {one.says}" for one in findings(client, now, node_id=node_id)] or None,
        gpus=node.gpus,
        known_gpus=sorted(known_gpus(look)) or None,
        rack=node.rack,
        pods=only(PodView, [_pod(client, pod) for pod in page], fields),
        next_cursor=more,
    )


def known_gpus(look: Look) -> set[str]:
    """UUIDs of its GPUs, as far as the API server tells: by conditions, events and pods.

    Nothing in Kubernetes lists all of them, so that another one may exist too.
    """
    found = {uuid for pod in look.pods for uuid in pod.devices or ()}
    for text in _texts(look.node):
        found.update(gpu_uuids(text))
    return found


def _texts(node: Node) -> list[str]:
    texts = [one.message for one in node.faults]
    for event in (node.quarantine.events or ()) if node.quarantine else ():
        texts += [event.message, *(value for _, value in event.entities)]
    return texts


def lease_view(held: Held | None) -> str | None:
    """Who has the maintenance lock; that it exists is that it is held."""
    if held is None:
        return None
    return held.owner or held.holder or "somebody who does not say"


def _pod(client: NvsentinelClient, pod: Pod) -> PodView:
    guarding = [
        one
        for one in client.budgets.values()
        if one.namespace == pod.namespace
        and (one.labels is None or one.labels.items() <= pod.labels.items())
    ]
    blocked = any(one.allowed == 0 for one in guarding)
    return PodView(
        namespace=pod.namespace,
        pod=pod.name,
        tenant=client.tenant_of(pod.namespace),
        job=pod.job,
        gang=pod.gang,
        gpus=pod.gpus or None,
        devices=None if pod.devices is None else list(pod.devices),
        budgets=[one.name for one in guarding] or None,
        blocked=True if blocked else None,
        leaving_since=pod.leaving_since,
    )


def _pod_id(pod: Pod) -> str:
    return f"{pod.namespace}/{pod.name}"
