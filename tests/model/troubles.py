"""What goes wrong: the daemon's deaths, failing requests, a full disk, a wrong clock, records that are lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

from model.meddling import Meddler
from model.steps import step
from model.things import replace_file
from support.instance import DiedAtOnceError

FLOOD = 6000
"""Files made and removed in a row: three inotify records each, more than the queue's 16,384."""


class Troubles(Meddler):
    """A world with all that can happen in it."""

    @step
    def kill(self) -> None:
        """``kill -9``; it stays down."""
        if self.is_up:
            self.made.kill()

    @step
    def stop(self) -> None:
        if self.is_up:
            code = self.made.stop()
            died = code == -signal.SIGKILL and self.crash.deaths != self.deaths
            assert code == 0 or died or self.was_full, f"the daemon ended with {code}: {self.made.said()}"

    @step
    def start(self) -> None:
        if self.crash.deaths != self.deaths and self.made.daemon is not None:
            self.made.daemon.wait(60)  # it kills itself this moment
        while not self.is_up:
            self.daemon.renew_queue()
            self._send(self.sure)
            try:
                self.made.start()
            except DiedAtOnceError:
                if self.crash.is_armed or self.crash.deaths == self.deaths:
                    if not self.daemon.is_full:
                        raise
                    return  # without a byte of space it says so and ends
            self.deaths = self.crash.deaths

    # ------------------------------------------------------------- what goes wrong

    @step
    def die(self, moments: int) -> None:
        """The daemon dies at the so-many-th durable step from now."""
        self.crash.arm(moments)

    @step
    def fail(self, kind: str, method: str = "", count: int = 1) -> None:
        """The next requests of that kind fail, before they took effect or after."""
        self.store.faults += [(kind, method)] * count

    @step
    def go_down(self) -> None:
        """The endpoint is out of reach until the next `settle`, or `heal`."""
        self.store.hang_up()

    @step
    def heal(self) -> None:
        self.store.heal()
        self.daemon.empty()

    @step
    def fill(self) -> None:
        """No byte of space is left where tree and catalog are."""
        self.daemon.fill()
        self.was_full = True

    @step
    def jump(self, hours: int) -> None:
        """The daemon's clock is wrong by so much from now on."""
        self.crash.set_clock(hours * 3600 * 10**9)

    @step
    def flood(self, paths: Sequence[str] = ()) -> None:
        """inotify's queue overflows: what happens next is not told, to files that are written, renamed and removed
        behind the daemon's back among it (those at three ``paths``)."""
        with self._frozen():
            beside = self.behind / "flood~"
            for _ in range(FLOOD):
                os.close(os.open(beside, os.O_WRONLY | os.O_CREAT, 0o600))
                os.unlink(beside)
            if self.front == self.behind and paths:
                written, renamed, removed = paths
                content = self._content(100)
                self.must.discard(content)
                if self._do(lambda root: replace_file(root / written, content), [(written, self.local(written))]):
                    self._hold(content)
                    self._brought(written, content)
                linked = self._things_at(renamed)
                new = renamed + "-unseen"
                if self._do(lambda root: (root / renamed).rename(root / new), [(new, self.local(new))]):
                    for below, things in linked.items():
                        self._brought(new + below, *self._contents_of(renamed + below, things))
                self._do(lambda root: (root / removed).unlink(), [(removed, self.local(removed))])

    def end(self) -> None:
        """Take the association out of the daemon, for the next world."""
        self.start()
        self._leave()

    def _leave(self) -> None:
        self.client.delete(self.id, delete_data=False, force=True, hydrate=False)
        # moto reads all keys of a bucket for each listing: what is left here would slow down all worlds to come.
        # (Delete markers stay: with notifications on, it can't delete one.)
        pages = self.s3.get_paginator("list_object_versions").paginate(Bucket=self.bucket, Prefix=self.prefix)
        for page in pages:
            for entry in page.get("Versions", []):
                self.s3.delete_object(Bucket=self.bucket, Key=entry["Key"], VersionId=entry["VersionId"])
