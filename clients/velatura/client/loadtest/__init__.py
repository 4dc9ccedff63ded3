"""Load tests: realistic callers against a running server, judged by a gate. `velatura-loadtest`.

Built on Locust, which the extra `velatura-client[loadtest]` brings: its users, its web page, its
report. Importing Locust makes the process's sockets and threads gevent's, so nothing outside of
this package may import what is in here, and in here only `cli` decides when Locust is loaded.
"""
