"""The remote side: all the boto3 there is. Everything blocks; call it from a worker thread."""
