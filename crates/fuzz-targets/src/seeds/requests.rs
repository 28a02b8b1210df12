//! Requests: one for each address that takes a body, and those whose addresses and headers are parsed.

const API: &[&str] = &[
    "operator GET /",
    "nobody GET /me\nauthorization: Bearer ork_00000000000000000000000000000001_aaaa",
    "consumer GET /me\nif-none-match: \"x\", W/\"y\"\ntraceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "consumer GET /market/offerings?region=eu-1&country=DE&min_free_bytes=5&max_price=20000000&max_latency_ms=900&min_uptime_ppm=1&versioning=false&limit=5&cursor=1",
    "operator GET /allocations?state=active&limit=1&cursor=eyJrZXkiOiJ6enoiLCJpZCI6Im5vdGhpbmcifQ",
    "operator GET /units?limit=1000&cursor=eyJrZXkiOm51bGwsImlkIjoidW5pdF8xIn0",
    "operator GET /jobs?kind=provision&state=completed&limit=2",
    "operator GET /units/{u}/qos?from=2026-09-21T00:00:00Z&to=2026-09-22T00:00:00Z&limit=10",
    "operator GET /audit?limit=3",
    "operator GET /blocks?domain=local",
    "operator GET /ledger?domain=local",
    "operator GET /accounts/consumer:{c}/proof?at=sealed",
    "operator GET /disputes?allocation={a}",
    "operator GET /blocks/local/1/proof?kind=reexecution",
    "operator GET /blocks/local/1/records?limit=1",
    "consumer GET /events\nlast-event-id: evt_00000000000000000000000000000001",
    "operator HEAD /units/{u}",
    "operator OPTIONS /allocations/reserve",
    "operator POST /keys\n\n{\"tenant\":\"{c}\",\"label\":\"a server\"}",
    "operator POST /keys\n\n{\"role\":\"operator\",\"label\":\"a person\"}",
    "operator POST /providers\nidempotency-key: a-1\n\n{\"name\":\"North\",\"adapter\":{\"kind\":\"embedded\",\"admin_url\":\"http://127.0.0.1:7702\",\"admin_token\":\"0123456789abcdef\"}}",
    "operator POST /providers\n\n{\"name\":\"South\",\"domain\":\"local\",\"adapter\":{\"kind\":\"co_hosted\"}}",
    "operator POST /consumers\n\n{\"name\":\"Ada's archive\",\"domain\":null}",
    "operator POST /oracles\n\n{\"name\":\"o\",\"key_id\":\"k2\",\"public_key\":\"d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a\"}",
    "provider POST /units\n\n{\"name\":\"disk\",\"region\":\"eu-1\",\"country\":\"DE\",\"capacity_bytes\":1073741824,\"features\":{\"versioning\":true},\"sla\":{\"uptime_ppm\":999000,\"latency_avg_ms\":60,\"penalty\":\"tiered\",\"credit_tiers\":[{\"uptime_below_ppm\":999000,\"credit_ppm\":100000}]},\"price\":{\"per_gib_month\":\"1000000\",\"per_gib_egress\":\"1000\"},\"price_bounds\":{\"min_per_gib_month\":\"1\",\"max_per_gib_month\":\"9\"}}",
    "provider POST /units/{u}/price\n\n{\"price\":{\"per_gib_month\":\"7\",\"per_gib_egress\":\"0\"},\"fixed\":true}",
    "provider POST /units/{u}/sla\n\n{\"uptime_ppm\":990000}",
    "provider POST /units/{u}/maintenance\n\n{\"from\":\"2026-09-23T00:00:00Z\",\"to\":\"2026-09-23T02:00:00Z\"}",
    "provider POST /units/{u}/maintenance/begin\n\n{\"until\":\"2026-09-22T00:00:00Z\"}",
    "provider POST /units/{u}/maintenance/end",
    "provider POST /units/{u}/decommission",
    "consumer POST /allocations/reserve\nidempotency-key: r-1\n\n{\"unit\":\"{u}\",\"bytes\":1048576,\"period_ms\":2592000000,\"egress_allowance_bytes\":5}",
    "consumer POST /allocations/reserve\n\n{\"filter\":{\"region\":\"eu-1\",\"country\":\"DE\",\"max_price\":\"2000000\"},\"bytes\":1,\"period_ms\":86400000}",
    "consumer POST /allocations/{r}/fund",
    "consumer POST /allocations/{r}/cancel\n\n{}",
    "consumer POST /allocations/{a}/close",
    "consumer POST /allocations/{a}/renew\n\n{\"period_ms\":86400000}",
    "consumer POST /allocations/{a}/credentials\n\n{\"permissions\":\"read_only\",\"expires_at\":\"2026-10-01T00:00:00Z\"}",
    "consumer POST /allocations/{a}/dispute\n\n{\"kind\":\"billing\",\"claim\":\"too much\",\"evidence\":[\"x\"],\"amount\":\"5\"}",
    "consumer POST /credentials/{k}/rotate\n\n{\"overlap_ms\":1000}",
    "consumer POST /credentials/{k}/revoke",
    "operator POST /accounts/consumer:{c}/deposits\n\n{\"amount\":\"340282366920938463463374607431768211455\"}",
    "consumer POST /accounts/consumer:{c}/withdrawals\n\n{\"amount\":\"1000\"}",
    "provider POST /accounts/provider:{p}/collateral\n\n{\"amount\":\"1\",\"release\":true}",
    "operator POST /disputes/disp_00000000000000000000000000000001/decide\n\n{\"decision\":\"consumer\",\"reason\":\"so\"}",
    "operator POST /jobs/{j}/retry",
    "operator POST /jobs/{j}/cancel",
    "operator POST /jobs/dead-letters/redrive\n\n{\"max\":10}",
    "operator POST /triggers/expire_reservations/fire\nidempotency-key: f\n\n{}",
    "operator POST /blocks/local/resume",
    "operator POST /providers/{p}/teardowns/resume",
    "operator POST /oracles/{o}/disable",
    "oracle POST /evidence\n\n{\"statement\":{\"version\":1,\"oracle\":\"{o}\",\"key_id\":\"k1\",\"subject\":{\"unit\":\"{u}\"},\"from\":1789999990000000,\"to\":1789999995000000,\"nonce\":1,\"body\":{\"type\":\"integrity\",\"checked\":5,\"damaged\":2}},\"signature\":\"00\"}",
];

const PROVIDER_ADMIN: &[&str] = &[
    "nobody GET /health",
    "nobody GET /describe\nauthorization: Bearer of bad news",
    "admin GET /describe",
    "admin GET /allocations",
    "admin PUT /allocations/alloc-2\n\n{\"generation\":1,\"bytes\":1048576,\"region\":\"local\"}",
    "admin PUT /allocations/alloc-1\n\n{\"generation\":2,\"bytes\":1048576}",
    "admin DELETE /allocations/alloc-1?generation=2",
    "admin PUT /allocations/alloc-1/keys/AKIAFUZZ2\n\n{\"generation\":2,\"secret\":\"0123456789abcdef\",\"permissions\":\"read_only\"}",
    "admin DELETE /allocations/alloc-1/keys/AKIAFUZZ1?generation=9223372036854775807",
    "admin PUT /allocations/alloc-1/access\n\n{\"generation\":2,\"level\":\"none\"}",
    "admin GET /allocations/alloc-1/usage",
    "admin GET /allocations/alloc-1/effects",
    "admin GET /qos",
    "admin PUT /faults\n\n{\"latency_ms\":1}",
];

const PROVIDER_S3: &[&str] = &[
    "signed GET /",
    "nobody GET /alloc-1",
    "nobody GET /alloc-1/a?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAFUZZ1/20261121/local/s3/aws4_request&X-Amz-Date=20261121T000000Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature=00\nhost: 127.0.0.1",
    "nobody PUT /alloc-1/a\nauthorization: AWS4-HMAC-SHA256 Credential=AKIAFUZZ1/20261121/local/s3/aws4_request, SignedHeaders=host;x-amz-date, Signature=00\nx-amz-date: 20261121T000000Z\n\nbytes",
    "nobody POST /alloc-1\ncontent-type: multipart/form-data; boundary=x\n\n--x\r\ncontent-disposition: form-data; name=\"key\"\r\n\r\na\r\n--x--",
    "borrowed GET /alloc-1",
    "borrowed PUT /alloc-1/a\n\nbytes",
    "presigned GET /alloc-1/a?X-Amz-Expires=60",
    "presigned PUT /alloc-1/b\n\nbytes",
    "signed PUT /alloc-1/a%20b\ncontent-type: text/plain\nx-amz-meta-one: 1\ncontent-md5: SzpiGLs+OnMD6KFxpg/Pkg==\n\nbytes",
    "signed PUT /alloc-1/c\nx-amz-content-sha256: STREAMING-UNSIGNED-PAYLOAD-TRAILER\nx-amz-decoded-content-length: 5\nx-amz-trailer: x-amz-checksum-crc32\ncontent-encoding: aws-chunked\n\n5\r\nbytes\r\n0\r\nx-amz-checksum-crc32:sZlDzg==\r\n\r\n",
    "signed PUT /alloc-1/c\nx-amz-content-sha256: STREAMING-AWS4-HMAC-SHA256-PAYLOAD\nx-amz-decoded-content-length: 5\n\n5;chunk-signature=00\r\nbytes\r\n0;chunk-signature=00\r\n\r\n",
    "signed GET /alloc-1?list-type=2&max-keys=5&prefix=a&delimiter=/&continuation-token=YQ&encoding-type=url&start-after=a",
    "signed GET /alloc-1?marker=a&max-keys=1",
    "signed GET /alloc-1?uploads&key-marker=a&upload-id-marker=b",
    "signed GET /alloc-1?location",
    "signed GET /alloc-1/a\nrange: bytes=1-3\nif-match: \"x\"\nif-modified-since: Sat, 21 Nov 2026 00:00:00 GMT",
    "signed HEAD /alloc-1/a",
    "signed DELETE /alloc-1/a",
    "signed POST /alloc-1?delete\ncontent-type: application/xml\n\n<Delete><Quiet>true</Quiet><Object><Key>a</Key></Object></Delete>",
    "signed PUT /alloc-1/d\nx-amz-copy-source: /alloc-1/a%20b\nx-amz-metadata-directive: REPLACE",
    "signed POST /alloc-1/e?uploads",
    "signed PUT /alloc-1/e?partNumber=1&uploadId=00\n\nbytes",
    "signed POST /alloc-1/e?uploadId=00\n\n<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>\"00\"</ETag></Part></CompleteMultipartUpload>",
    "signed GET /alloc-1/e?uploadId=00&max-parts=1&part-number-marker=0",
    "signed PUT /other/a\n\nbytes",
];

fn bytes(all: &[&str]) -> Vec<Vec<u8>> {
    all.iter().map(|text| text.as_bytes().to_vec()).collect()
}

pub(super) fn api() -> Vec<Vec<u8>> {
    bytes(API)
}

pub(super) fn provider_admin() -> Vec<Vec<u8>> {
    bytes(PROVIDER_ADMIN)
}

pub(super) fn provider_s3() -> Vec<Vec<u8>> {
    bytes(PROVIDER_S3)
}
