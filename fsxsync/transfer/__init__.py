"""Bytes between repository and file: chunk jobs with priorities, single and multipart uploads."""
