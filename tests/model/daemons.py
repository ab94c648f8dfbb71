"""A daemon for each way of working in a directory, kept from world to world as long as all goes well."""

from __future__ import annotations

import uuid
from pathlib import Path

from support.instance import Instance
from support.moto_server import MotoServer


class Daemons:
    """``get`` starts one where there is none; ``drop`` ends one that something went wrong with."""

    def __init__(self, moto: MotoServer, base: Path) -> None:
        self.moto = moto
        self._base = base
        self._kept: dict[str, tuple[Instance, str]] = {}

    def get(self, way: str) -> tuple[Instance, str]:
        if way not in self._kept:
            made = Instance(self._base / f"{way}-{uuid.uuid4().hex[:6]}", mounted=way != "watch")
            # The long poll of a killed daemon may take a message with it: it comes back soon.
            queue = self.moto.client("sqs").create_queue(
                QueueName=f"q-{uuid.uuid4().hex[:12]}", Attributes={"VisibilityTimeout": "1"}
            )["QueueUrl"]
            self._kept[way] = made, queue
            made.start()
        return self._kept[way]

    def drop(self, way: str) -> None:
        made, _ = self._kept.pop(way)
        made.clean_up()

    def close(self) -> None:
        for way in list(self._kept):
            self.drop(way)
