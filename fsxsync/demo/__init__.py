"""``fsxsync demo``: an S3 and SQS server of its own, a mount, and a story that both sides can be seen in."""
