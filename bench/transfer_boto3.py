"""boto3's part of the transfer benchmark, a process of its own."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import boto3
import trio
from boto3.s3.transfer import TransferConfig
from botocore.config import Config

from bench.transfer_child import Gauge, Task, main


async def run(task: Task, gauge: Gauge) -> None:
    """One object with ``threads`` requests at a time, as boto3 does it; many objects in as many threads."""
    client = boto3.session.Session().client(
        "s3",
        endpoint_url=task.url,
        config=Config(s3={"addressing_style": "path"}, signature_version="s3v4", max_pool_connections=task.threads),
    )
    alone = len(task.keys) == 1
    config = TransferConfig(max_concurrency=task.threads, use_threads=alone, max_bandwidth=task.limit or None)
    client.head_object(Bucket=task.bucket, Key=task.warm_key)

    def move(key: str) -> None:
        file = os.path.join(task.directory, os.path.basename(key))
        if task.action == "download":
            client.download_file(task.bucket, key, file, Config=config)
        else:
            client.upload_file(file, task.bucket, key, Config=config)

    def move_all() -> None:
        with ThreadPoolExecutor(1 if alone else task.threads) as pool:
            list(pool.map(move, task.keys))

    async with gauge.measuring():
        await trio.to_thread.run_sync(move_all)


if __name__ == "__main__":
    main(run)
