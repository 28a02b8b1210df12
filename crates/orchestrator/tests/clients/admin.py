"""The admin API, as far as the suites need it; standard library only."""

import json
import urllib.request


class Admin:
    def __init__(self, url, token):
        self.url, self.token = url, token

    def call(self, method, path, body=None):
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": "Bearer " + self.token, "Content-Type": "application/json"},
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=20) as answer:
            return json.load(answer)

    def allocate(self, name, size):
        return self.call("PUT", "/allocations/" + name, {"generation": 1, "bytes": size})["bucket"]

    def key(self, name, access_key, permissions="read_write"):
        secret = "a secret of the tests for " + access_key
        body = {"generation": 1, "secret": secret, "permissions": permissions}
        self.call("PUT", f"/allocations/{name}/keys/{access_key}", body)
        return access_key, secret

    def restrict(self, name, level):
        self.call("PUT", f"/allocations/{name}/access", {"generation": 1, "level": level})

    def revoke(self, name, access_key):
        self.call("DELETE", f"/allocations/{name}/keys/{access_key}?generation=1")

    def usage(self, name):
        return self.call("GET", f"/allocations/{name}/usage")
