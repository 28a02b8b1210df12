"""boto3, as it comes, against the built-in server: S3 URL, admin URL, admin token."""

import base64
import hashlib
import io
import os
import sys
import urllib.error
import urllib.request

# What this machine says of other clouds is none of this test's business.
for name in [name for name in os.environ if name.startswith("AWS_")]:
    del os.environ[name]

import boto3
from admin import Admin
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError, MissingDependencyException

MIB = 1 << 20
s3_url, admin_url, token = sys.argv[1:4]
admin = Admin(admin_url, token)
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def client(key, **config):
    return boto3.client(
        "s3",
        endpoint_url=s3_url,
        region_name="local",
        aws_access_key_id=key[0],
        aws_secret_access_key=key[1],
        config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}, proxies={}, **config),
    )


def refused(call, *codes, **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        code = error.response["Error"]["Code"]
        assert code in codes, f"{code} is not among {codes}: {error}"
        return error.response["ResponseMetadata"]["HTTPStatusCode"]
    raise AssertionError(f"was not refused: {call} {arguments}")


def sha(data):
    return hashlib.sha256(data).hexdigest()


bucket = admin.allocate("boto-one", 64 * MIB)
other_bucket = admin.allocate("boto-two", MIB)
key = admin.key("boto-one", "AKBOTOONE")
s3, other = client(key), client(admin.key("boto-two", "AKBOTOTWO"))

# Buckets: its own and nothing else.
assert [b["Name"] for b in s3.list_buckets()["Buckets"]] == [bucket]
s3.head_bucket(Bucket=bucket)
assert s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] == "local"
refused(s3.create_bucket, "BucketAlreadyOwnedByYou", Bucket=bucket)
refused(s3.create_bucket, "AccessDenied", Bucket="another-bucket")
for call in (s3.list_objects_v2, s3.list_objects, s3.list_multipart_uploads):
    refused(call, "AccessDenied", Bucket=other_bucket)
refused(s3.put_object, "AccessDenied", Bucket=other_bucket, Key="x", Body=b"x")
refused(s3.get_bucket_versioning, "NotImplemented", Bucket=bucket)
refused(client((key[0], "a wrong secret, long enough")).list_buckets, "SignatureDoesNotMatch")
refused(client(("AKNOBODY", "x" * 20)).list_buckets, "InvalidAccessKeyId")

# Small objects with everything that is said of them.
body = os.urandom(100_000)
put = s3.put_object(Bucket=bucket, Key="dir/ä b+c.bin", Body=body, ContentType="text/x-test",
                    CacheControl="no-store", Metadata={"colour": "blue"})
assert put["ETag"] == f'"{hashlib.md5(body).hexdigest()}"', put
got = s3.get_object(Bucket=bucket, Key="dir/ä b+c.bin")
assert sha(got["Body"].read()) == sha(body)
assert (got["ContentType"], got["CacheControl"], got["Metadata"]) == ("text/x-test", "no-store", {"colour": "blue"})
head = s3.head_object(Bucket=bucket, Key="dir/ä b+c.bin")
assert (head["ContentLength"], head["ETag"], head["Metadata"]) == (100_000, put["ETag"], {"colour": "blue"})
s3.put_object(Bucket=bucket, Key="empty", Body=b"")
assert s3.get_object(Bucket=bucket, Key="empty")["Body"].read() == b""
refused(s3.get_object, "NoSuchKey", Bucket=bucket, Key="dir")

# Checksums, each way they can be sent.
for algorithm in ("CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"):
    try:
        sent = s3.put_object(Bucket=bucket, Key="sum", Body=body, ChecksumAlgorithm=algorithm)
    except MissingDependencyException:  # boto3 without its optional native part lacks some of them
        assert algorithm in ("CRC32C", "CRC64NVME"), algorithm
        continue
    assert sent["Checksum" + algorithm]
    got = s3.get_object(Bucket=bucket, Key="sum", ChecksumMode="ENABLED")
    assert got["Checksum" + algorithm] == sent["Checksum" + algorithm]
    assert got["Body"].read() == body
refused(s3.put_object, "BadDigest", Bucket=bucket, Key="bad", Body=body,
        ChecksumSHA256=base64.b64encode(hashlib.sha256(b"other").digest()).decode())
refused(s3.put_object, "BadDigest", Bucket=bucket, Key="bad", Body=body,
        ContentMD5=base64.b64encode(hashlib.md5(b"other").digest()).decode())
refused(s3.head_object, "404", Bucket=bucket, Key="bad")
signed = client(key, request_checksum_calculation="when_required")
signed.put_object(Bucket=bucket, Key="plain", Body=io.BytesIO(body))

# Ranges and conditions.
name = {"Bucket": bucket, "Key": "plain"}
for text, expected in (("bytes=0-0", body[:1]), ("bytes=10-19", body[10:20]), ("bytes=99990-", body[99990:]),
                       ("bytes=-5", body[-5:]), ("bytes=99990-200000", body[99990:])):
    got = s3.get_object(**name, Range=text)
    assert got["ResponseMetadata"]["HTTPStatusCode"] == 206 and got["Body"].read() == expected, text
refused(s3.get_object, "InvalidRange", **name, Range="bytes=100000-")
etag = s3.head_object(**name)["ETag"]
assert s3.get_object(**name, IfMatch=etag)["Body"].read() == body
assert refused(s3.get_object, "PreconditionFailed", **name, IfMatch='"other"') == 412
assert refused(s3.get_object, "304", "NotModified", **name, IfNoneMatch=etag) == 304
refused(s3.put_object, "PreconditionFailed", **name, Body=b"x", IfNoneMatch="*")
refused(s3.put_object, "PreconditionFailed", **name, Body=b"x", IfMatch='"other"')

# Multipart by the transfer manager: hashes equal, parts of 5 MiB.
big = os.urandom(12 * MIB + 345)
transfer = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB, max_concurrency=3)
s3.upload_fileobj(io.BytesIO(big), bucket, "big", Config=transfer, ExtraArgs={"ContentType": "x/y"})
back = io.BytesIO()
s3.download_fileobj(bucket, "big", back, Config=transfer)
assert sha(back.getvalue()) == sha(big)
head = s3.head_object(Bucket=bucket, Key="big")
md5s = b"".join(hashlib.md5(big[i:i + 5 * MIB]).digest() for i in range(0, len(big), 5 * MIB))
assert head["ETag"] == f'"{hashlib.md5(md5s).hexdigest()}-3"' and head["ContentType"] == "x/y", head
edge = 5 * MIB - 3
got = s3.get_object(Bucket=bucket, Key="big", Range=f"bytes={edge}-{edge + 9}")
assert got["Body"].read() == big[edge:edge + 10]

# Multipart by hand: list, copy a part, abort, wrong parts.
upload = s3.create_multipart_upload(Bucket=bucket, Key="hand")["UploadId"]
at = {"Bucket": bucket, "Key": "hand", "UploadId": upload}
first = s3.upload_part(**at, PartNumber=1, Body=big[:5 * MIB])["ETag"]
second = s3.upload_part_copy(**at, PartNumber=7, CopySource={"Bucket": bucket, "Key": "big"},
                             CopySourceRange="bytes=100-199")["CopyPartResult"]["ETag"]
assert [(p["PartNumber"], p["Size"]) for p in s3.list_parts(**at)["Parts"]] == [(1, 5 * MIB), (7, 100)]
assert [u["UploadId"] for u in s3.list_multipart_uploads(Bucket=bucket)["Uploads"]] == [upload]
refused(s3.complete_multipart_upload, "InvalidPartOrder", **at, MultipartUpload={
    "Parts": [{"PartNumber": 7, "ETag": second}, {"PartNumber": 1, "ETag": first}]})
refused(s3.complete_multipart_upload, "InvalidPart", **at, MultipartUpload={"Parts": [{"PartNumber": 2, "ETag": first}]})
refused(s3.complete_multipart_upload, "EntityTooSmall", **at, MultipartUpload={
    "Parts": [{"PartNumber": 7, "ETag": second}, {"PartNumber": 8, "ETag": s3.upload_part(
        **at, PartNumber=8, Body=b"z")["ETag"]}]})
s3.complete_multipart_upload(**at, MultipartUpload={
    "Parts": [{"PartNumber": 1, "ETag": first}, {"PartNumber": 7, "ETag": second}]})
assert s3.get_object(Bucket=bucket, Key="hand")["Body"].read() == big[:5 * MIB] + big[100:200]
refused(s3.list_parts, "NoSuchUpload", **at)
before = admin.usage("boto-one")["stored"]
upload = s3.create_multipart_upload(Bucket=bucket, Key="given up")["UploadId"]
s3.upload_part(Bucket=bucket, Key="given up", UploadId=upload, PartNumber=1, Body=b"x" * 1000)
assert admin.usage("boto-one")["stored"] == before + 1000
s3.abort_multipart_upload(Bucket=bucket, Key="given up", UploadId=upload)
assert admin.usage("boto-one")["stored"] == before

# Copies.
s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "dir/ä b+c.bin"})
assert s3.head_object(Bucket=bucket, Key="copy")["Metadata"] == {"colour": "blue"}
s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "copy"},
               MetadataDirective="REPLACE", Metadata={"colour": "red"})
got = s3.get_object(Bucket=bucket, Key="copy")
assert got["Metadata"] == {"colour": "red"} and got["Body"].read() == body
refused(other.copy_object, "AccessDenied", Bucket=other_bucket, Key="stolen",
        CopySource={"Bucket": bucket, "Key": "copy"})

# Listings, paged and rolled up.
for key_name in ("l/a", "l/b/1", "l/b/2", "l/c", "l/d/1", "l/%", "l/e&<>"):
    s3.put_object(Bucket=bucket, Key=key_name, Body=b"1")
for size in (1, 2, 1000):
    pages = s3.get_paginator("list_objects_v2").paginate(
        Bucket=bucket, Prefix="l/", Delimiter="/", PaginationConfig={"PageSize": size})
    keys, prefixes = [], []
    for page in pages:
        keys += [o["Key"] for o in page.get("Contents", [])]
        prefixes += [p["Prefix"] for p in page.get("CommonPrefixes", [])]
    assert (keys, prefixes) == (["l/%", "l/a", "l/c", "l/e&<>"], ["l/b/", "l/d/"]), (size, keys, prefixes)
    pages = s3.get_paginator("list_objects").paginate(
        Bucket=bucket, Prefix="l/", Delimiter="/", PaginationConfig={"PageSize": size})
    names = [o["Key"] for p in pages for o in p.get("Contents", [])]
    assert names == keys, (size, names)
flat = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, PaginationConfig={"PageSize": 3})
names = [o["Key"] for p in flat for o in p.get("Contents", [])]
assert names == sorted(names, key=str.encode) and len(names) == len(set(names)) and "dir/ä b+c.bin" in names
after = s3.list_objects_v2(Bucket=bucket, Prefix="l/", StartAfter="l/b/1")["Contents"]
assert [o["Key"] for o in after] == ["l/b/2", "l/c", "l/d/1", "l/e&<>"]

# Presigned.
put_url = s3.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "pre signed"})
request = urllib.request.Request(put_url, data=body, method="PUT")
assert opener.open(request, timeout=20).status == 200
get_url = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "pre signed"})
assert opener.open(get_url, timeout=20).read() == body
try:
    opener.open(get_url.replace("pre%20signed", "plain"), timeout=20)
    raise AssertionError("a presigned address opened another object")
except urllib.error.HTTPError as error:
    assert error.code == 403, error

# Deletes.
s3.delete_object(Bucket=bucket, Key="pre signed")
s3.delete_object(Bucket=bucket, Key="pre signed")
refused(s3.get_object, "NoSuchKey", Bucket=bucket, Key="pre signed")
gone = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "l/a"}, {"Key": "never was"}]})
assert sorted(d["Key"] for d in gone["Deleted"]) == ["l/a", "never was"] and "Errors" not in gone

# Quota: refused ahead, and nothing is left.
other.put_object(Bucket=other_bucket, Key="most", Body=b"x" * 900_000)
assert refused(other.put_object, "QuotaExceeded", Bucket=other_bucket, Key="too much", Body=b"x" * 200_000) == 403
upload = other.create_multipart_upload(Bucket=other_bucket, Key="parts")["UploadId"]
refused(other.upload_part, "QuotaExceeded", Bucket=other_bucket, Key="parts", UploadId=upload, PartNumber=1,
        Body=b"x" * 200_000)
other.put_object(Bucket=other_bucket, Key="most", Body=b"x" * 1_000_000)
assert admin.usage("boto-two")["stored"] == 1_000_000
assert [o["Key"] for o in other.list_objects_v2(Bucket=other_bucket)["Contents"]] == ["most"]

# Restricted: reading only. Revoked: nothing.
reader = client(admin.key("boto-one", "AKBOTOREAD", "read_only"))
assert reader.get_object(Bucket=bucket, Key="plain")["Body"].read() == body
refused(reader.delete_object, "AccessDenied", Bucket=bucket, Key="plain")
admin.restrict("boto-one", "read_only")
assert s3.get_object(Bucket=bucket, Key="plain")["Body"].read() == body
for call, more in ((s3.put_object, {"Body": b"x"}), (s3.delete_object, {}), (s3.create_multipart_upload, {})):
    refused(call, "AccessDenied", Bucket=bucket, Key="plain", **more)
admin.restrict("boto-one", "full")
s3.put_object(Bucket=bucket, Key="plain", Body=b"again")
admin.revoke("boto-one", key[0])
refused(s3.get_object, "InvalidAccessKeyId", "AccessDenied", Bucket=bucket, Key="plain")
refused(s3.list_buckets, "InvalidAccessKeyId", "AccessDenied")
assert reader.get_object(Bucket=bucket, Key="plain")["Body"].read() == b"again"
assert int(admin.usage("boto-one")["egress"]) > len(big)
