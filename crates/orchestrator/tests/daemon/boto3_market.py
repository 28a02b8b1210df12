"""boto3, as it comes, on storage bought over the daemon's API: API URL, operator's key, S3 URL."""

import hashlib
import io
import json
import os
import sys
import time
import urllib.request

# What this machine says of other clouds is none of this test's business.
for name in [name for name in os.environ if name.startswith("AWS_")]:
    del os.environ[name]

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

MIB = 1 << 20
GONE = ("AccessDenied", "InvalidAccessKeyId")
api_url, operator_key, s3_url = sys.argv[1:4]
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def api(key, method, path, body=None):
    headers = {"Authorization": "Bearer " + key, "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(api_url + path, method=method, data=data, headers=headers)
    with opener.open(request, timeout=20) as answer:
        return json.load(answer)


def wait_for(what, ask):
    end = time.monotonic() + 40
    while time.monotonic() < end:
        if answer := ask():
            return answer
        time.sleep(0.05)
    raise AssertionError("waited in vain for " + what)


def client(routing, issued):
    return boto3.client(
        "s3",
        endpoint_url=routing["endpoint"],
        region_name=routing["region"],
        aws_access_key_id=issued["credential"]["access_key_id"],
        aws_secret_access_key=issued["secret_access_key"],
        config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}, proxies={}),
    )


def outcome(call, **arguments):
    """`None` when it was answered, the error's code when it was refused."""
    try:
        call(**arguments)
    except ClientError as error:
        return error.response["Error"]["Code"]
    return None


def sha(data):
    return hashlib.sha256(data).hexdigest()


# Buy.
consumer = api(operator_key, "POST", "/consumers", {"name": "boto"})["id"]
api(operator_key, "POST", f"/accounts/consumer:{consumer}/deposits", {"amount": str(1000 * 10**18)})
mine = api(operator_key, "POST", "/keys", {"role": "consumer", "tenant": consumer, "label": "boto"})["text"]
unit = api(mine, "GET", "/units")["items"][0]["id"]
ask = {"unit": unit, "bytes": 64 * MIB, "period_ms": 86_400_000, "egress_allowance_bytes": 256 * MIB}
allocation = api(mine, "POST", "/allocations/reserve", ask)["id"]
path = "/allocations/" + allocation


def in_state(state):
    found = api(mine, "GET", path)
    return found if found["state"] == state else None


api(mine, "POST", path + "/fund")
routing = wait_for("the allocation", lambda: in_state("active"))["routing"]
assert routing["endpoint"].rstrip("/") == s3_url.rstrip("/"), (routing, s3_url)
bucket = routing["bucket"]

# Store and read back, in one piece and in parts.
first = api(mine, "POST", path + "/credentials", {})
s3 = client(routing, first)
small, big = os.urandom(100_000), os.urandom(12 * MIB + 345)
s3.put_object(Bucket=bucket, Key="small", Body=small)
transfer = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB, max_concurrency=3)
s3.upload_fileobj(io.BytesIO(big), bucket, "dir/big", Config=transfer)


def reads_all(client):
    back = io.BytesIO()
    client.download_fileobj(bucket, "dir/big", back, Config=transfer)
    assert sha(back.getvalue()) == sha(big)
    assert sha(client.get_object(Bucket=bucket, Key="small")["Body"].read()) == sha(small)


reads_all(s3)
assert s3.head_object(Bucket=bucket, Key="dir/big")["ETag"].endswith('-3"')

# Another consumer's keys open nothing here.
other = api(mine, "POST", "/allocations/reserve", dict(ask, bytes=MIB))["id"]
api(mine, "POST", f"/allocations/{other}/fund")
there = wait_for("the other one", lambda: api(mine, "GET", "/allocations/" + other)["routing"])
stranger = client(there, api(mine, "POST", f"/allocations/{other}/credentials", {}))
assert outcome(stranger.get_object, Bucket=bucket, Key="small") == "AccessDenied"

# A read-only key reads only.
reader = client(routing, api(mine, "POST", path + "/credentials", {"permissions": "read_only"}))
reads_all(reader)
assert outcome(reader.put_object, Bucket=bucket, Key="small", Body=b"x") == "AccessDenied"

# Rotation: both work, then only the new one.
id_of = first["credential"]["id"]
second = api(mine, "POST", f"/credentials/{id_of}/rotate", {"overlap_ms": 10_000})
renewed = client(routing, second)
for each in (s3, renewed):
    each.put_object(Bucket=bucket, Key="overlap", Body=b"both")
    reads_all(each)
wait_for("the overlap to end", lambda: outcome(s3.get_object, Bucket=bucket, Key="small") in GONE)
assert outcome(s3.put_object, Bucket=bucket, Key="small", Body=b"x") in GONE
reads_all(renewed)
renewed.put_object(Bucket=bucket, Key="after", Body=b"new")

# Revoked: nothing any more, within a second.
third = api(mine, "POST", path + "/credentials", {})
short = client(routing, third)
reads_all(short)
api(mine, "POST", f"/credentials/{third['credential']['id']}/revoke")
time.sleep(1)
for call, more in ((short.get_object, {}), (short.put_object, {"Body": b"x"}), (short.delete_object, {})):
    assert outcome(call, Bucket=bucket, Key="small", **more) in GONE
assert outcome(short.list_objects_v2, Bucket=bucket) in GONE
reads_all(renewed)

# Closing: reading only while the grace lasts, then nothing.
api(mine, "POST", path + "/close")
wait_for("read-only", lambda: outcome(renewed.put_object, Bucket=bucket, Key="small", Body=small) == "AccessDenied")
assert outcome(renewed.delete_object, Bucket=bucket, Key="small") == "AccessDenied"
assert outcome(renewed.create_multipart_upload, Bucket=bucket, Key="more") == "AccessDenied"
reads_all(renewed)
reads_all(reader)
wait_for("the purge", lambda: in_state("closed"))
for each in (renewed, reader):
    assert outcome(each.get_object, Bucket=bucket, Key="small") in GONE + ("NoSuchBucket",)
