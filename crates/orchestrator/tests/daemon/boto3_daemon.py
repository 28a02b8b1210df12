"""boto3, as it comes, with keys that the daemon issued: API URL, operator's key."""

import hashlib
import io
import json
import os
import sys
import time
import urllib.error
import urllib.request

for name in [name for name in os.environ if name.startswith("AWS_")]:
    del os.environ[name]

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

MIB = 1 << 20
api_url, operator = sys.argv[1:3]
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def call(method, path, body=None, key=operator):
    request = urllib.request.Request(
        api_url + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": "Bearer " + key, "Content-Type": "application/json"},
    )
    with opener.open(request, timeout=20) as answer:
        return json.load(answer)


def until(what, ask):
    end = time.monotonic() + 30
    while time.monotonic() < end:
        found = ask()
        if found:
            return found
        time.sleep(0.03)
    raise AssertionError("waited too long for " + what)


def refusal(call, **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        return error.response["Error"]["Code"]
    return None


consumer = call("POST", "/consumers", {"name": "boto"})["id"]
call("POST", f"/accounts/consumer:{consumer}/deposits", {"amount": str(10**24)})
mine = call("POST", "/keys", {"role": "consumer", "tenant": consumer, "label": "boto"})["text"]
unit = call("GET", "/units")["items"][0]["id"]
ask = {"unit": unit, "bytes": 64 * MIB, "period_ms": 2_592_000_000, "egress_allowance_bytes": 64 * MIB}
path = "/allocations/" + call("POST", "/allocations/reserve", ask, mine)["id"]
call("POST", path + "/fund", {}, mine)
active = until("activation", lambda: (a := call("GET", path, key=mine))["state"] == "active" and a)
route = active["routing"]
bucket = route["bucket"]


def client(issued):
    return boto3.client(
        "s3",
        endpoint_url=route["endpoint"],
        region_name=route["region"],
        aws_access_key_id=issued["credential"]["access_key_id"],
        aws_secret_access_key=issued["secret_access_key"],
        config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}, proxies={}),
    )


def sha(data):
    return hashlib.sha256(data).hexdigest()


first = call("POST", path + "/credentials", {}, mine)
s3 = client(first)
small, large = os.urandom(10_000), os.urandom(17 * MIB)
s3.put_object(Bucket=bucket, Key="small", Body=small)
parts = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB)
s3.upload_fileobj(io.BytesIO(large), bucket, "dir/large", Config=parts)
for key, body in (("small", small), ("dir/large", large)):
    assert sha(s3.get_object(Bucket=bucket, Key=key)["Body"].read()) == sha(body), key
assert "-" in s3.head_object(Bucket=bucket, Key="dir/large")["ETag"], "it was not sent in parts"

# A rotation: both work until the overlap ends, then the new one alone.
credential = "/credentials/" + first["credential"]["id"]
second = call("POST", credential + "/rotate", {"overlap_ms": 3_600_000}, mine)
new = client(second)
for one in (s3, new):
    assert sha(one.get_object(Bucket=bucket, Key="small")["Body"].read()) == sha(small)
assert call("GET", credential, key=mine)["state"] == "rotating"

# Revoked: it opens nothing within a second, the other one still does.
call("POST", credential + "/revoke", {}, mine)
end = time.monotonic() + 1
while refusal(s3.get_object, Bucket=bucket, Key="small") is None:
    assert time.monotonic() < end, "a revoked key still works after a second"
assert refusal(s3.put_object, Bucket=bucket, Key="late", Body=b"x") in ("InvalidAccessKeyId", "AccessDenied")
new.put_object(Bucket=bucket, Key="after", Body=b"after")

# A key that only reads.
reader = client(call("POST", path + "/credentials", {"permissions": "read_only"}, mine))
assert reader.get_object(Bucket=bucket, Key="after")["Body"].read() == b"after"
assert refusal(reader.put_object, Bucket=bucket, Key="x", Body=b"x") == "AccessDenied"

# A closing allocation can be read until its grace ends, and not written.
call("POST", path + "/close", {}, mine)
until("read-only", lambda: refusal(new.put_object, Bucket=bucket, Key="x", Body=b"x") == "AccessDenied")
assert sha(new.get_object(Bucket=bucket, Key="dir/large")["Body"].read()) == sha(large)
try:
    call("POST", path + "/credentials", {}, mine)
    raise AssertionError("a closing allocation gave keys")
except urllib.error.HTTPError as error:
    assert error.code in (409, 422), error.code
