"""The cases, one file a family of calls (`posix_suite.registry`)."""
