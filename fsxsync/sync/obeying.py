"""What the store of an association obeys (SERVERS.md): found out once per bucket, before anything is written there.

An association that exports by itself finds it out when it is served. Where nothing is written but by hand (tasks, a
person's word on a conflict), that is done when it is asked for: who only imports gets no probe in his bucket.
"""

from __future__ import annotations

from dataclasses import asdict

from fsxsync.model.association import Lifecycle
from fsxsync.ports import Conditions
from fsxsync.sync.served import Served


async def at_start(served: Served) -> None:
    """Remember it, or find it out where writes are to be expected: anew once somebody has updated the association, as
    behind its address there may be another store by now, or another version of it.

    Raises:
        RepositoryError.
    """
    if served.association.lifecycle is Lifecycle.UPDATING:
        served.shared.catalog.facts.set(_fact(served), None)
    if not _remembered(served) and served.association.policy.exports:
        await _find_out(served)


async def before_writes(served: Served) -> None:
    """Somebody asks for what the association does not do by itself.

    Raises:
        RepositoryError.
    """
    if not served.association.read_only and not _remembered(served):
        await _find_out(served)


def _fact(served: Served) -> str:
    access = served.association.access
    name = f"conditions {access.endpoint_url or 'aws'} {served.association.bucket}"
    if any(asked := (access.acl, access.sse, access.storage_class)):  # is the bucket's to take or to refuse
        name += f" {asked}"
    return name


def _remembered(served: Served) -> bool:
    known = served.shared.catalog.facts.get(_fact(served))
    if not isinstance(known, dict):
        return False
    served.store.conditions = Conditions(**known)
    return True


async def _find_out(served: Served) -> None:
    conditions = await served.store.probe(served.association.prefix)
    served.shared.catalog.facts.set(_fact(served), asdict(conditions))
