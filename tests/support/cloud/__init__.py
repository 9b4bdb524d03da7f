"""Services of sandboxes on loopback: they speak the protocol of the real ones to their real SDKs, over real kernels.

`room` is one sandbox, `web` is what the services have in common, `scalebox` and `e2b` are the services themselves (each
a process of its own, in an environment that has its SDK's messages), and `running` starts one for a test:

    with running.start("e2b") as cloud:
        cloud.fail("POST /sandboxes", status=429, headers={"Retry-After": "1"})
        ...
        assert not cloud.sandboxes()
"""
