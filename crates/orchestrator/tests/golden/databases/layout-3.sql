CREATE TABLE "accounts" (id TEXT NOT NULL UNIQUE, version INTEGER NOT NULL, "f_domain", body TEXT NOT NULL);
CREATE TABLE "allocations" (id TEXT NOT NULL UNIQUE, version INTEGER NOT NULL, "f_consumer", "f_provider", "f_unit", "f_state", "f_reserved_until", "f_ends_at", body TEXT NOT NULL);
CREATE TABLE "api_keys" (id TEXT NOT NULL UNIQUE, version INTEGER NOT NULL, "f_principal.id", body TEXT NOT NULL);
CREATE TABLE "audit" (id TEXT NOT NULL UNIQUE, version INTEGER NOT NULL, "f_subject", body TEXT NOT NULL);
CREATE TABLE "blocks" (id TEXT NOT NULL UNIQUE, version INTEGER NOT NULL, "f_header.domain", "f_state", body TEXT NOT NULL);
CREATE TABLE "buckets" (id TEXT NOT NULL UNIQUE, version INTEGER NOT NULL, "f_subject", "f_start", body TEXT NOT NULL);
CREATE TABLE "consumers" (id TEXT NOT NULL UNIQUE, version INTEGER NOT NULL, body TEXT NOT NULL);
CREATE TABLE "credentials" (id TEXT NOT NULL UNIQUE, version INTEGER NOT NULL, "f_allocation", "f_state", "f_expires_at", body TEXT NOT NULL);
CREATE TABLE "damaged" (id TEXT NOT NULL UNIQUE, version INTEGER NOT NULL, "f_collection", body TEXT NOT NULL);
CREATE TABLE "disputes" (id TEXT NOT NULL UNIQUE, version INTEGER NOT NULL, "f_allocation", "f_state", "f_deadline", body TEXT NOT NULL);
CREATE TABLE "jobs" (id TEXT NOT NULL UNIQUE, version INTEGER NOT NULL, "f_due", "f_lease_until", "f_dedup", "f_subject", "f_state", "f_kind", body TEXT NOT NULL);
CREATE TABLE layout_history (layout INTEGER PRIMARY KEY, program TEXT NOT NULL, at TEXT NOT NULL);
CREATE TABLE "meta" (id TEXT NOT NULL UNIQUE, version INTEGER NOT NULL, body TEXT NOT NULL);
CREATE TABLE "oracles" (id TEXT NOT NULL UNIQUE, version INTEGER NOT NULL, body TEXT NOT NULL);
CREATE TABLE "outbox" (id TEXT NOT NULL UNIQUE, version INTEGER NOT NULL, "f_unsent", "f_sent_at", body TEXT NOT NULL);
CREATE TABLE "price_changes" (id TEXT NOT NULL UNIQUE, version INTEGER NOT NULL, "f_unit", body TEXT NOT NULL);
CREATE TABLE "probes" (id TEXT NOT NULL UNIQUE, version INTEGER NOT NULL, body TEXT NOT NULL);
CREATE TABLE "providers" (id TEXT NOT NULL UNIQUE, version INTEGER NOT NULL, body TEXT NOT NULL);
CREATE TABLE "quarantined" (id TEXT NOT NULL UNIQUE, version INTEGER NOT NULL, "f_marker.domain", body TEXT NOT NULL);
CREATE TABLE "queue_messages" (id TEXT NOT NULL UNIQUE, version INTEGER NOT NULL, "f_queue", "f_visible_at", body TEXT NOT NULL);
CREATE TABLE "rejected_blocks" (id TEXT NOT NULL UNIQUE, version INTEGER NOT NULL, body TEXT NOT NULL);
CREATE TABLE "reports" (id TEXT NOT NULL UNIQUE, version INTEGER NOT NULL, "f_period_key", "f_received_at", body TEXT NOT NULL);
CREATE TABLE "reputations" (id TEXT NOT NULL UNIQUE, version INTEGER NOT NULL, "f_provider", body TEXT NOT NULL);
CREATE TABLE "requests" (id TEXT NOT NULL UNIQUE, version INTEGER NOT NULL, "f_created_at", body TEXT NOT NULL);
CREATE TABLE "schedules" (id TEXT NOT NULL UNIQUE, version INTEGER NOT NULL, "f_next_at", body TEXT NOT NULL);
CREATE TABLE "sealed_entries" (id TEXT NOT NULL UNIQUE, version INTEGER NOT NULL, "f_block", body TEXT NOT NULL);
CREATE TABLE "subjects" (id TEXT NOT NULL UNIQUE, version INTEGER NOT NULL, body TEXT NOT NULL);
CREATE TABLE "transfers" (id TEXT NOT NULL UNIQUE, version INTEGER NOT NULL, "f_domain", "f_idempotency_key", "f_debit", "f_credit", "f_subject", body TEXT NOT NULL);
CREATE TABLE "unit_dues" (id TEXT NOT NULL UNIQUE, version INTEGER NOT NULL, "f_at", body TEXT NOT NULL);
CREATE TABLE "units" (id TEXT NOT NULL UNIQUE, version INTEGER NOT NULL, "f_provider", "f_updated_at", body TEXT NOT NULL);
CREATE TABLE "unsealed" (id TEXT NOT NULL UNIQUE, version INTEGER NOT NULL, "f_domain", body TEXT NOT NULL);
CREATE TABLE "verdicts" (id TEXT NOT NULL UNIQUE, version INTEGER NOT NULL, "f_unit", "f_period_key", "f_allocation", body TEXT NOT NULL);
CREATE INDEX "accounts.by_domain" ON "accounts" ("f_domain", id) WHERE "f_domain" IS NOT NULL;
CREATE INDEX "allocations.by_consumer" ON "allocations" ("f_consumer", id) WHERE "f_consumer" IS NOT NULL;
CREATE INDEX "allocations.by_end" ON "allocations" ("f_state", "f_ends_at", id) WHERE "f_state" IS NOT NULL;
CREATE INDEX "allocations.by_provider" ON "allocations" ("f_provider", id) WHERE "f_provider" IS NOT NULL;
CREATE INDEX "allocations.by_state" ON "allocations" ("f_state", "f_reserved_until", id) WHERE "f_state" IS NOT NULL;
CREATE INDEX "allocations.by_unit" ON "allocations" ("f_unit", id) WHERE "f_unit" IS NOT NULL;
CREATE INDEX "api_keys.by_tenant" ON "api_keys" ("f_principal.id", id) WHERE "f_principal.id" IS NOT NULL;
CREATE INDEX "audit.by_subject" ON "audit" ("f_subject", id) WHERE "f_subject" IS NOT NULL;
CREATE INDEX "blocks.by_state" ON "blocks" ("f_header.domain", "f_state", id) WHERE "f_header.domain" IS NOT NULL;
CREATE INDEX "buckets.by_subject" ON "buckets" ("f_subject", "f_start", id) WHERE "f_subject" IS NOT NULL;
CREATE INDEX "credentials.by_allocation" ON "credentials" ("f_allocation", id) WHERE "f_allocation" IS NOT NULL;
CREATE INDEX "credentials.by_state" ON "credentials" ("f_state", "f_expires_at", id) WHERE "f_state" IS NOT NULL;
CREATE INDEX "damaged.by_collection" ON "damaged" ("f_collection", id) WHERE "f_collection" IS NOT NULL;
CREATE INDEX "disputes.by_allocation" ON "disputes" ("f_allocation", id) WHERE "f_allocation" IS NOT NULL;
CREATE INDEX "disputes.by_state" ON "disputes" ("f_state", "f_deadline", id) WHERE "f_state" IS NOT NULL;
CREATE UNIQUE INDEX "jobs.by_dedup" ON "jobs" ("f_dedup") WHERE "f_dedup" IS NOT NULL;
CREATE INDEX "jobs.by_due" ON "jobs" ("f_due", id) WHERE "f_due" IS NOT NULL;
CREATE INDEX "jobs.by_lease" ON "jobs" ("f_lease_until", id) WHERE "f_lease_until" IS NOT NULL;
CREATE INDEX "jobs.by_state" ON "jobs" ("f_state", "f_kind", id) WHERE "f_state" IS NOT NULL AND "f_state" <> 'created' AND "f_state" <> 'running' AND "f_state" <> 'verifying' AND "f_state" <> 'completed';
CREATE INDEX "jobs.by_subject" ON "jobs" ("f_subject", id) WHERE "f_subject" IS NOT NULL;
CREATE INDEX "outbox.by_sent" ON "outbox" ("f_sent_at", id) WHERE "f_sent_at" IS NOT NULL;
CREATE INDEX "outbox.by_unsent" ON "outbox" ("f_unsent", id) WHERE "f_unsent" IS NOT NULL;
CREATE INDEX "price_changes.by_unit" ON "price_changes" ("f_unit", id) WHERE "f_unit" IS NOT NULL;
CREATE INDEX "quarantined.by_domain" ON "quarantined" ("f_marker.domain", id) WHERE "f_marker.domain" IS NOT NULL;
CREATE INDEX "queue_messages.by_visible" ON "queue_messages" ("f_queue", "f_visible_at", id) WHERE "f_queue" IS NOT NULL;
CREATE UNIQUE INDEX "reports.by_period" ON "reports" ("f_period_key") WHERE "f_period_key" IS NOT NULL;
CREATE INDEX "reports.by_received" ON "reports" ("f_received_at", id) WHERE "f_received_at" IS NOT NULL;
CREATE INDEX "reputations.by_provider" ON "reputations" ("f_provider", id) WHERE "f_provider" IS NOT NULL;
CREATE INDEX "requests.by_created" ON "requests" ("f_created_at", id) WHERE "f_created_at" IS NOT NULL;
CREATE INDEX "schedules.by_next" ON "schedules" ("f_next_at", id) WHERE "f_next_at" IS NOT NULL;
CREATE INDEX "sealed_entries.by_block" ON "sealed_entries" ("f_block", id) WHERE "f_block" IS NOT NULL;
CREATE INDEX "transfers.by_credit" ON "transfers" ("f_credit", id) WHERE "f_credit" IS NOT NULL;
CREATE INDEX "transfers.by_debit" ON "transfers" ("f_debit", id) WHERE "f_debit" IS NOT NULL;
CREATE UNIQUE INDEX "transfers.by_idempotency" ON "transfers" ("f_domain", ifnull("f_idempotency_key", x'03')) WHERE "f_domain" IS NOT NULL;
CREATE INDEX "transfers.by_subject" ON "transfers" ("f_subject", id) WHERE "f_subject" IS NOT NULL;
CREATE INDEX "unit_dues.by_at" ON "unit_dues" ("f_at", id) WHERE "f_at" IS NOT NULL;
CREATE INDEX "units.by_provider" ON "units" ("f_provider", id) WHERE "f_provider" IS NOT NULL;
CREATE INDEX "units.by_updated" ON "units" ("f_updated_at", id) WHERE "f_updated_at" IS NOT NULL;
CREATE INDEX "unsealed.by_domain" ON "unsealed" ("f_domain", id) WHERE "f_domain" IS NOT NULL;
CREATE INDEX "verdicts.by_allocation" ON "verdicts" ("f_allocation", id) WHERE "f_allocation" IS NOT NULL;
CREATE UNIQUE INDEX "verdicts.by_period" ON "verdicts" ("f_period_key") WHERE "f_period_key" IS NOT NULL;
CREATE INDEX "verdicts.by_unit" ON "verdicts" ("f_unit", id) WHERE "f_unit" IS NOT NULL;
INSERT INTO "accounts" VALUES ('local/fees', 1, 'local', '{
  "v": 1,
  "domain": "local",
  "key": "fees",
  "balance": "681833510500388",
  "withdrawable": "0",
  "sequence": 6
}
');
INSERT INTO "allocations" VALUES ('alloc_01a1fe50c6237d7e8f16cec81d3984be', 1, 'cons_01a1fe50c4ad7065859860eaa3702244', 'prov_01a1fe50c39175c28eaec24c3c21eb7f', 'unit_01a1fe50c3a07063ac01e6bd1da147df', 'restricted', 1795268968899924, 1795354468937070, '{
  "v": 1,
  "id": "alloc_01a1fe50c6237d7e8f16cec81d3984be",
  "consumer": "cons_01a1fe50c4ad7065859860eaa3702244",
  "unit": "unit_01a1fe50c3a07063ac01e6bd1da147df",
  "provider": "prov_01a1fe50c39175c28eaec24c3c21eb7f",
  "domain": "local",
  "bytes": 1073741824,
  "egress_allowance": 1073741824,
  "period": 86400000000,
  "price": {
    "per_gib_month": "20000000000000000000",
    "per_gib_egress": "1000000000000000000"
  },
  "sla": {
    "latency_avg": 60000,
    "latency_p95": null,
    "upload_bytes_per_s": 1000000,
    "download_bytes_per_s": 1000000,
    "uptime": 999500,
    "error_rate": 100,
    "min_coverage": 500000,
    "credit_tiers": [],
    "penalty": "tiered",
    "collateral_slash": 0
  },
  "escrow_required": "1666666666666666666",
  "state": "restricted",
  "access": "restricted",
  "restrictions": [
    "quota",
    "violation"
  ],
  "routing": {
    "endpoint": "http://127.0.0.1:45717",
    "region": "slowpoke-1",
    "bucket": "alloc-01a1fe50c6237d7e8f16cec81d3984be",
    "profile": "s3",
    "path_style": true
  },
  "reserved_until": 1795268968899924,
  "activated_at": 1795268068937070,
  "ends_at": 1795354468937070,
  "closing_at": 1795268078934950,
  "purge_at": 1795268079945998,
  "periods_settled": 2,
  "settled_through": 1795268078944973,
  "settled_usage": {
    "stored": 12201000,
    "byte_seconds": "111579170",
    "egress": 12201000,
    "read_at": 1795268078944973
  },
  "usage": {
    "stored": 12201000,
    "byte_seconds": "111579170",
    "egress": 12201000,
    "read_at": 1795268078944973
  },
  "paid": "11363868555413374",
  "credited": "1136386855541336",
  "failure": null,
  "created_at": 1795268068899924,
  "updated_at": 1795268079970046,
  "breached_in_a_row": 2
}
');
INSERT INTO "api_keys" VALUES ('key_01a1fe50c4b175a49317ba20c4975d27', 1, 'cons_01a1fe50c4ad7065859860eaa3702244', '{
  "v": 1,
  "id": "key_01a1fe50c4b175a49317ba20c4975d27",
  "secret_sha256": "00b147784e005b429e55b62dfd1d40bfab20b2b67692a5ce69c181a079c34696",
  "principal": {
    "role": "consumer",
    "id": "cons_01a1fe50c4ad7065859860eaa3702244"
  },
  "label": "demo",
  "created_at": 1795268068529276,
  "revoked_at": null
}
');
INSERT INTO "audit" VALUES ('aud_01a1fe50ed577abbb88be380f1230530', 1, 'alloc_01a1fe50c6237d7e8f16cec81d3984be', '{
  "v": 1,
  "id": "aud_01a1fe50ed577abbb88be380f1230530",
  "principal": {
    "role": "consumer",
    "id": "cons_01a1fe50c4ad7065859860eaa3702244"
  },
  "action": "allocation.close",
  "subject": "alloc_01a1fe50c6237d7e8f16cec81d3984be",
  "trace_id": "01a1fe50ed55783496de3f75edbff4bc",
  "at": 1795268078935128
}
');
INSERT INTO "blocks" VALUES ('local/000000000005', 1, 'local', 'final', '{
  "v": 1,
  "header": {
    "domain": "local",
    "number": 5,
    "parent": "0x8734c8f44e0480dba2b08e3c0e9b57061b2295a27678560c41fe95fded5306be",
    "state_root": "0x33bb9233abf1f810ef25abf84d67d29e3f802fb7a9984ab3711c5eff729cd621",
    "total": "3300000000000000000000",
    "events_root": "0x6c73cfd4629ffb50187a248c4ec7dd524d45c2a9a30a921f7c2022f33267ce1d",
    "evidence_root": "0x0000000000000000000000000000000000000000000000000000000000000000",
    "last_deposit": 6,
    "records": 3
  },
  "hash": "0x07027ff22066bd7e50e8ace3ed4cf1c0689acdea93e016ec9db6343c1564c9bb",
  "state": "final",
  "records_key": "records/local/c985dc537157c4d4d2b8e9715c5cd273282e494920f56f5ced15f9f7092ae330",
  "da_reference": "local/5/0xbf5ca126e722d51a039cc633fda02c6a09a6671b2ea050143f79e9d05254da25",
  "register_transaction": "local-00000015",
  "settle_transaction": "local-00000016",
  "rejection": null,
  "round": 7,
  "sealed_at": 1795268080038500,
  "final_at": 1795268080751358
}
');
INSERT INTO "buckets" VALUES ('sight:orcl_70726f62657200000000000000000001/00001795268079000000/orcl_70726f62657200000000000000000001', 1, 'sight:orcl_70726f62657200000000000000000001', 1795268079000000, '{
  "v": 1,
  "subject": "sight:orcl_70726f62657200000000000000000001",
  "oracle": "orcl_70726f62657200000000000000000001",
  "start": 1795268079000000,
  "providers": [
    [
      "prov_01a1fe50c1fa76a4a2255a48a11c8275",
      16,
      0
    ],
    [
      "prov_01a1fe50c39175c28eaec24c3c21eb7f",
      2,
      0
    ],
    [
      "prov_01a1fe50c3a47397b38c64d2397395b4",
      16,
      10
    ]
  ],
  "canary_failed": false
}
');
INSERT INTO "buckets" VALUES ('unit_01a1fe50c1fe71c0b933fe47689e5ab1/00001795268079000000/orcl_70726f62657200000000000000000001', 1, 'unit_01a1fe50c1fe71c0b933fe47689e5ab1', 1795268079000000, '{
  "v": 1,
  "subject": "unit_01a1fe50c1fe71c0b933fe47689e5ab1",
  "oracle": "orcl_70726f62657200000000000000000001",
  "start": 1795268079000000,
  "periods": [
    [
      1795268079000000,
      1795268080000000
    ]
  ],
  "qos": {
    "operations": {
      "put": {
        "attempts": 4,
        "failures": {},
        "latency_sum_us": 49677,
        "latency": {
          "144": 1,
          "147": 1,
          "162": 1,
          "190": 1
        },
        "bulk_bytes": 0,
        "bulk_us": 0
      },
      "get": {
        "attempts": 4,
        "failures": {},
        "latency_sum_us": 9554,
        "latency": {
          "111": 1,
          "119": 1,
          "136": 1,
          "142": 1
        },
        "bulk_bytes": 0,
        "bulk_us": 0
      },
      "head": {
        "attempts": 4,
        "failures": {},
        "latency_sum_us": 3845,
        "latency": {
          "101": 1,
          "108": 1,
          "109": 1,
          "116": 1
        },
        "bulk_bytes": 0,
        "bulk_us": 0
      },
      "delete": {
        "attempts": 4,
        "failures": {},
        "latency_sum_us": 8385,
        "latency": {
          "119": 1,
          "122": 1,
          "125": 1,
          "137": 1
        },
        "bulk_bytes": 0,
        "bulk_us": 0
      }
    }
  },
  "checked": 0,
  "damaged": 0
}
');
INSERT INTO "consumers" VALUES ('cons_01a1fe50c4ad7065859860eaa3702244', 1, '{
  "v": 1,
  "id": "cons_01a1fe50c4ad7065859860eaa3702244",
  "name": "cleo",
  "domain": "local",
  "created_at": 1795268068525060
}
');
INSERT INTO "credentials" VALUES ('cred_01a1fe50c6757c8482615d2526d2cd7b', 1, 'alloc_01a1fe50c6237d7e8f16cec81d3984be', 'revoked', 1795368068485858, '{
  "v": 1,
  "id": "cred_01a1fe50c6757c8482615d2526d2cd7b",
  "allocation": "alloc_01a1fe50c6237d7e8f16cec81d3984be",
  "access_key_id": "UX29LY5WXMXSZVBBYVP9",
  "sealed_secret": "v1.c2VhbGVk",
  "permissions": "read_write",
  "state": "revoked",
  "predecessor": "cred_01a1fe50c6757c8482615d2526d2cd7b",
  "expires_at": 1795368068485858,
  "overlap_until": 1795368068485858,
  "created_at": 1795268068981755,
  "updated_at": 1795268079969999
}
');
INSERT INTO "damaged" VALUES ('jobs/job_01a1fe50ed6d71a19f7a303f77b9bf42@1795268068000000', 1, 'jobs', '{
  "v": 1,
  "id": "jobs/job_01a1fe50ed6d71a19f7a303f77b9bf42@1795268068000000",
  "collection": "jobs",
  "document": "job_01a1fe50ed6d71a19f7a303f77b9bf42",
  "version": 3,
  "body": "{\"v\":1,\"kind\":\"nonsense\"}",
  "reason": "jobs/job_01a1fe50ed6d71a19f7a303f77b9bf42 is damaged: missing field `id`",
  "at": 1795268068000000
}
');
INSERT INTO "disputes" VALUES ('disp_01a1fe50c3a07063ac01e6bd1da147df', 1, 'alloc_01a1fe50c6237d7e8f16cec81d3984be', 'for_provider', 1795527268000000, '{
  "v": 1,
  "id": "disp_01a1fe50c3a07063ac01e6bd1da147df",
  "domain": "local",
  "allocation": "alloc_01a1fe50c6237d7e8f16cec81d3984be",
  "consumer": "cons_01a1fe50c4ad7065859860eaa3702244",
  "provider": "prov_01a1fe50c39175c28eaec24c3c21eb7f",
  "kind": "violation",
  "claim": "shared illegal content",
  "evidence": [
    "0xab"
  ],
  "held": "1000",
  "state": "for_provider",
  "reason": "upheld",
  "opened_by": "prov_01a1fe50c39175c28eaec24c3c21eb7f",
  "deadline": 1795527268000000,
  "created_at": 1795268068000000,
  "decided_at": 1795268069000000
}
');
INSERT INTO "jobs" VALUES ('job_01a1fe50f1d87faba926f804acd4944e', 1, 1795268068485858, 1795268098485858, 'update_state:local/000000000005/0x07027ff22066bd7e50e8ace3ed4cf1c0689acdea93e016ec9db6343c1564c9bb', 'local/000000000005', 'completed', 'update_state', '{
  "v": 2,
  "id": "job_01a1fe50f1d87faba926f804acd4944e",
  "kind": "update_state",
  "subject": "local/000000000005",
  "dedup": "update_state:local/000000000005/0x07027ff22066bd7e50e8ace3ed4cf1c0689acdea93e016ec9db6343c1564c9bb",
  "state": "completed",
  "due": 1795268068485858,
  "attempts": 1,
  "verify_attempts": 1,
  "losses": 2,
  "lease_owner": "one",
  "lease_token": 10,
  "lease_until": 1795268098485858,
  "input": {
    "domain": "local",
    "hash": "0x07027ff22066bd7e50e8ace3ed4cf1c0689acdea93e016ec9db6343c1564c9bb",
    "number": 5
  },
  "output": {
    "transaction": "local-00000016"
  },
  "effects": {
    "tx": {
      "intent": {
        "nonce": 1
      },
      "outcome": {
        "hash": "0x01"
      },
      "at": 1795268068485858
    }
  },
  "created_at": 1795268080088931,
  "updated_at": 1795268080751567,
  "depends_on": [
    "job_01a1fe50c4857e989c7f160e4f774001"
  ],
  "polling_since": 1795268068485858,
  "failures": [
    {
      "at": 1795268068485858,
      "phase": "verify",
      "error": "no answer",
      "retryable": true
    }
  ]
}
                                                                                                ');
INSERT INTO "layout_history" VALUES (3, 'orchestrator 0.1.0', '2026-11-29 13:12:30');
INSERT INTO "meta" VALUES ('boot-epoch', 1, '{
  "v": 1,
  "epoch": 1
}
');
INSERT INTO "meta" VALUES ('chain/local', 1, '{
  "v": 1,
  "domain": "local",
  "number": 5,
  "hash": "0x07027ff22066bd7e50e8ace3ed4cf1c0689acdea93e016ec9db6343c1564c9bb",
  "round": 5,
  "rejections": 3,
  "halted": "refused three times"
}
');
INSERT INTO "meta" VALUES ('default_market', 1, '{
  "v": 1,
  "provider": "prov_01a1fe50c1fa76a4a2255a48a11c8275",
  "unit": "unit_01a1fe50c1fe71c0b933fe47689e5ab1"
}
');
INSERT INTO "meta" VALUES ('deposits/local', 1, '{
  "v": 1,
  "domain": "local",
  "booked": 6,
  "total": "3300000000000000000000"
}
');
INSERT INTO "meta" VALUES ('lease/', 1, '{
  "v": 1,
  "owner": "one",
  "until": 1795268068000000
}
');
INSERT INTO "meta" VALUES ('prober-seed', 1, '{
  "v": 1,
  "sealed": "v1.c2VhbGVk"
}
');
INSERT INTO "meta" VALUES ('reconcile_budget', 1, '{
  "v": 1,
  "since": 1795268068000000,
  "used": 3
}
');
INSERT INTO "meta" VALUES ('restore_gaps', 1, '{
  "v": 1,
  "gaps": [
    {
      "from": 1795268068000000,
      "to": 1795268078000000
    }
  ]
}
');
INSERT INTO "meta" VALUES ('teardowns/prov_01a1fe50c39175c28eaec24c3c21eb7f', 1, '{
  "v": 1,
  "provider": "prov_01a1fe50c39175c28eaec24c3c21eb7f",
  "since": 1795268068000000,
  "used": 5,
  "limit": 5,
  "stopped_at": 1795268070000000
}
');
INSERT INTO "meta" VALUES ('topic/alerts', 1, '{
  "v": 1,
  "name": "alerts",
  "addresses": [
    "log:"
  ]
}
');
INSERT INTO "meta" VALUES ('trigger-seal_blocks', 1, '{
  "v": 1,
  "name": "seal_blocks",
  "every": 500000,
  "running": false,
  "runs": 1,
  "failures_in_a_row": 0,
  "last_run": 1795268068484622,
  "last_duration": 2007,
  "last_report": {
    "examined": 1,
    "changed": 1,
    "failed": 0,
    "note": null
  },
  "last_error": null
}
');
INSERT INTO "meta" VALUES ('vault_check', 1, '{
  "v": 1,
  "sealed": "v1.c2VhbGVk"
}
');
INSERT INTO "oracles" VALUES ('orcl_70726f62657200000000000000000001', 1, '{
  "v": 1,
  "id": "orcl_70726f62657200000000000000000001",
  "name": "built-in prober",
  "public_key": "bee7809105ebefc8857ea2610ccebe2954bd22a7894a53149c7699a4c3e0e7c5",
  "key_id": "prober-1",
  "last_nonce": 1795268080107015,
  "standing": 1000000,
  "enabled": true,
  "created_at": 1795268068002503
}
');
INSERT INTO "outbox" VALUES ('evt_01a1fe50ed6d7843a6962fef38582778', 1, NULL, 1795268078960603, '{
  "v": 1,
  "id": "evt_01a1fe50ed6d7843a6962fef38582778",
  "unsent": null,
  "sent_at": 1795268078960603,
  "attempts": 0,
  "outgoing": {
    "to": "event",
    "id": "evt_01a1fe50ed6d7843a6962fef38582778",
    "type": "sla.verdict",
    "subject": "alloc_01a1fe50c5907511bba2b6f71ba0f5aa",
    "audience": {
      "tenants": [
        "cons_01a1fe50c4907db880419ec31abe8089",
        "prov_01a1fe50c3a47397b38c64d2397395b4"
      ]
    },
    "data": {
      "coverage_ppm": 500000,
      "credited": "48495396500",
      "payment": "48495396500",
      "period": 1,
      "status": "breached",
      "verdict": "sla_01a1fe50ed6d774a9011f1995bf5526a"
    },
    "at": 1795268078957507
  },
  "created_at": 1795268078957507
}
');
INSERT INTO "price_changes" VALUES ('price_01a1fe50c3a07063ac01e6bd1da147df', 1, 'unit_01a1fe50c3ad7a269fec26c49ced3a7a', '{
  "v": 1,
  "id": "price_01a1fe50c3a07063ac01e6bd1da147df",
  "unit": "unit_01a1fe50c3ad7a269fec26c49ced3a7a",
  "provider": "prov_01a1fe50c3a47397b38c64d2397395b4",
  "before": "1000",
  "after": "1050",
  "advisor": "controller",
  "reason": "utilisation above target",
  "at": 1795268068485858
}
');
INSERT INTO "probes" VALUES ('unit_01a1fe50c3ad7a269fec26c49ced3a7a', 1, '{
  "v": 1,
  "unit": "unit_01a1fe50c3ad7a269fec26c49ced3a7a",
  "routing": {
    "endpoint": "http://127.0.0.1:33013",
    "region": "flaky-1",
    "bucket": "alloc-01a1fe50c3ad7a269fec26c49ced3a7a",
    "profile": "s3",
    "path_style": true
  },
  "access_key_id": "PROBE24580DD7E7E369F5236A",
  "sealed_secret": "v1.c2VhbGVk",
  "created_at": 1795268068345537
}
');
INSERT INTO "providers" VALUES ('prov_01a1fe50c3a47397b38c64d2397395b4', 1, '{
  "v": 1,
  "id": "prov_01a1fe50c3a47397b38c64d2397395b4",
  "name": "flaky",
  "domain": "local",
  "adapter": {
    "kind": "embedded",
    "admin_url": "http://127.0.0.1:41201",
    "sealed_token": "v1.c2VhbGVk"
  },
  "created_at": 1795268068260287
}
');
INSERT INTO "quarantined" VALUES ('tx_01a1fe50ed6d71a19f7a303f77b9bf42', 1, 'local', '{
  "v": 1,
  "marker": {
    "id": "tx_01a1fe50ed6d71a19f7a303f77b9bf42",
    "domain": "local",
    "kind": "transfer"
  },
  "reason": "the transfer does not exist",
  "at": 1795268068000000
}
');
INSERT INTO "queue_messages" VALUES ('triggers/000660c96c3cef0c-000000000065-e99bc9bddfe316ce', 1, 'triggers', 1795268080889612, '{
  "v": 1,
  "id": "triggers/000660c96c3cef0c-000000000065-e99bc9bddfe316ce",
  "queue": "triggers",
  "body": "end_periods",
  "visible_at": 1795268080889612,
  "deliveries": 0
}
');
INSERT INTO "rejected_blocks" VALUES ('0x07027ff22066bd7e50e8ace3ed4cf1c0689acdea93e016ec9db6343c1564c9bb.7', 1, '{
  "v": 1,
  "header": {
    "domain": "local",
    "number": 5,
    "parent": "0x8734c8f44e0480dba2b08e3c0e9b57061b2295a27678560c41fe95fded5306be",
    "state_root": "0x33bb9233abf1f810ef25abf84d67d29e3f802fb7a9984ab3711c5eff729cd621",
    "total": "3300000000000000000000",
    "events_root": "0x6c73cfd4629ffb50187a248c4ec7dd524d45c2a9a30a921f7c2022f33267ce1d",
    "evidence_root": "0x0000000000000000000000000000000000000000000000000000000000000000",
    "last_deposit": 6,
    "records": 3
  },
  "hash": "0x07027ff22066bd7e50e8ace3ed4cf1c0689acdea93e016ec9db6343c1564c9bb",
  "state": "rejected",
  "records_key": "records/local/c985dc537157c4d4d2b8e9715c5cd273282e494920f56f5ced15f9f7092ae330",
  "da_reference": "local/5/0xbf5ca126e722d51a039cc633fda02c6a09a6671b2ea050143f79e9d05254da25",
  "register_transaction": "local-00000015",
  "settle_transaction": "local-00000016",
  "rejection": "the parent is another one",
  "round": 7,
  "sealed_at": 1795268080038500,
  "final_at": 1795268080751358
}
');
INSERT INTO "reports" VALUES ('rep_01a1fe50f1e47d7d862ffa74367603ed', 1, 'orcl_70726f62657200000000000000000001/unit_01a1fe50c1fe71c0b933fe47689e5ab1/1795268079000000', 1795268080099960, '{
  "v": 1,
  "id": "rep_01a1fe50f1e47d7d862ffa74367603ed",
  "period_key": "orcl_70726f62657200000000000000000001/unit_01a1fe50c1fe71c0b933fe47689e5ab1/1795268079000000",
  "report": {
    "statement": {
      "version": 1,
      "oracle": "orcl_70726f62657200000000000000000001",
      "key_id": "prober-1",
      "subject": {
        "unit": "unit_01a1fe50c1fe71c0b933fe47689e5ab1"
      },
      "from": 1795268079000000,
      "to": 1795268080000000,
      "nonce": 1795268080099738,
      "body": {
        "type": "qos",
        "operations": {
          "put": {
            "attempts": 4,
            "failures": {},
            "latency_sum_us": 49677,
            "latency": {
              "144": 1,
              "147": 1,
              "162": 1,
              "190": 1
            },
            "bulk_bytes": 0,
            "bulk_us": 0
          },
          "get": {
            "attempts": 4,
            "failures": {},
            "latency_sum_us": 9554,
            "latency": {
              "111": 1,
              "119": 1,
              "136": 1,
              "142": 1
            },
            "bulk_bytes": 0,
            "bulk_us": 0
          },
          "head": {
            "attempts": 4,
            "failures": {},
            "latency_sum_us": 3845,
            "latency": {
              "101": 1,
              "108": 1,
              "109": 1,
              "116": 1
            },
            "bulk_bytes": 0,
            "bulk_us": 0
          },
          "delete": {
            "attempts": 4,
            "failures": {},
            "latency_sum_us": 8385,
            "latency": {
              "119": 1,
              "122": 1,
              "125": 1,
              "137": 1
            },
            "bulk_bytes": 0,
            "bulk_us": 0
          }
        }
      }
    },
    "signature": "e335f1125e6a448a056c147f5d325dc0dc3ae5cd3e9cf55cc1ac87e7e16e2e7db2436d4d47c4c470e4d87fc8951b61e670e0c43ec6f63658622aad8659505c0f"
  },
  "bucket": 1795268079000000,
  "received_at": 1795268080099960
}
');
INSERT INTO "reputations" VALUES ('unit_01a1fe50c3ad7a269fec26c49ced3a7a', 1, 'prov_01a1fe50c3a47397b38c64d2397395b4', '{
  "v": 1,
  "unit": "unit_01a1fe50c3ad7a269fec26c49ced3a7a",
  "provider": "prov_01a1fe50c3a47397b38c64d2397395b4",
  "millipoints": 48000,
  "day": 20778,
  "history": [
    {
      "day": 20778,
      "delta": -2000,
      "reason": "a metric was missed (-2)"
    }
  ],
  "updated_at": 1795268068485858
}
');
INSERT INTO "requests" VALUES ('bootstrap/unit', 1, 1795268067838893, '{
  "v": 1,
  "id": "bootstrap/unit",
  "fingerprint": "bootstrap",
  "outcome": {
    "active": 0,
    "capacity": 102005473280,
    "country": "CH",
    "created_at": 1795268067838737,
    "domain": "local",
    "features": {
      "encryption_at_rest": false,
      "object_lock": false,
      "versioning": false
    },
    "free": 102005473280,
    "id": "unit_01a1fe50c1fe71c0b933fe47689e5ab1",
    "kind": "storage",
    "live": 0,
    "maintenance": [],
    "mode": "open",
    "name": "built-in storage",
    "price": {
      "per_gib_egress": "1000000000000000000",
      "per_gib_month": "20000000000000000000"
    },
    "price_bounds": null,
    "profile": "s3",
    "provider": "prov_01a1fe50c1fa76a4a2255a48a11c8275",
    "region": "local-1",
    "sla": {
      "collateral_slash": 0,
      "credit_tiers": [],
      "download_bytes_per_s": 1000000,
      "error_rate": 100,
      "latency_avg": 50000,
      "latency_p95": null,
      "min_coverage": 500000,
      "penalty": "tiered",
      "upload_bytes_per_s": 1000000,
      "uptime": 999500
    },
    "tags": {},
    "updated_at": 1795268067838737
  },
  "created_at": 1795268067838893
}
');
INSERT INTO "schedules" VALUES ('cron/watch_deposits', 1, 1795268080990369, '{
  "v": 1,
  "next_at": 1795268080990369,
  "schedule": {
    "kind": "cron",
    "name": "watch_deposits",
    "every": 500000,
    "enabled": true,
    "targets": [
      {
        "queue": "triggers",
        "body": "watch_deposits"
      }
    ]
  }
}
');
INSERT INTO "sealed_entries" VALUES ('alloc_01a1fe50c6237d7e8f16cec81d3984be@7', 1, 'local/000000000005', '{
  "v": 1,
  "id": "alloc_01a1fe50c6237d7e8f16cec81d3984be@7",
  "domain": "local",
  "block": "local/000000000005",
  "kind": "allocation"
}
');
INSERT INTO "subjects" VALUES ('alloc_01a1fe50c6237d7e8f16cec81d3984be', 1, '{
  "v": 1,
  "id": "alloc_01a1fe50c6237d7e8f16cec81d3984be",
  "generation": 4,
  "holder": null,
  "token": 0
}
');
INSERT INTO "transfers" VALUES ('tx_01a1fe50ed6d71a19f7a303f77b9bf42', 1, 'local', 'refund:alloc_01a1fe50c5907511bba2b6f71ba0f5aa', 'escrow:alloc_01a1fe50c5907511bba2b6f71ba0f5aa', 'consumer:cons_01a1fe50c4907db880419ec31abe8089', 'alloc_01a1fe50c5907511bba2b6f71ba0f5aa', '{
  "v": 1,
  "id": "tx_01a1fe50ed6d71a19f7a303f77b9bf42",
  "domain": "local",
  "kind": "refund",
  "debit": "escrow:alloc_01a1fe50c5907511bba2b6f71ba0f5aa",
  "credit": "consumer:cons_01a1fe50c4907db880419ec31abe8089",
  "amount": "1655302773976258727",
  "debit_sequence": 6,
  "credit_sequence": 7,
  "idempotency_key": "refund:alloc_01a1fe50c5907511bba2b6f71ba0f5aa",
  "subject": "alloc_01a1fe50c5907511bba2b6f71ba0f5aa",
  "created_at": 1795268078957543
}
');
INSERT INTO "unit_dues" VALUES ('unit_01a1fe50c3ad7a269fec26c49ced3a7a', 1, 1795268068485858, '{
  "v": 1,
  "id": "unit_01a1fe50c3ad7a269fec26c49ced3a7a",
  "at": 1795268068485858
}
');
INSERT INTO "units" VALUES ('unit_01a1fe50c3ad7a269fec26c49ced3a7a', 1, 'prov_01a1fe50c3a47397b38c64d2397395b4', 1795268068269326, '{
  "v": 1,
  "id": "unit_01a1fe50c3ad7a269fec26c49ced3a7a",
  "provider": "prov_01a1fe50c3a47397b38c64d2397395b4",
  "name": "flaky''s disks",
  "domain": "local",
  "kind": "storage",
  "profile": "s3",
  "region": "flaky-1",
  "country": "CH",
  "capacity": 42949672960,
  "free": 42949672960,
  "live": 0,
  "active": 0,
  "features": {
    "versioning": false,
    "encryption_at_rest": false,
    "object_lock": false
  },
  "tags": {
    "tier": "hot"
  },
  "price": {
    "per_gib_month": "20000000000000000000",
    "per_gib_egress": "1000000000000000000"
  },
  "price_bounds": {
    "min": "1",
    "max": "20000000000000000000000"
  },
  "sla": {
    "latency_avg": 60000,
    "latency_p95": null,
    "upload_bytes_per_s": 1000000,
    "download_bytes_per_s": 1000000,
    "uptime": 999500,
    "error_rate": 100,
    "min_coverage": 500000,
    "credit_tiers": [],
    "penalty": "tiered",
    "collateral_slash": 0
  },
  "mode": "open",
  "maintenance": [
    {
      "announced_at": 1795268068485858,
      "from": 1795368068485858,
      "to": 1795368069485858
    }
  ],
  "created_at": 1795268068269326,
  "updated_at": 1795268068269326
}
');
INSERT INTO "unsealed" VALUES ('tx_01a1fe50ed6d71a19f7a303f77b9bf42', 1, 'local', '{
  "v": 1,
  "id": "tx_01a1fe50ed6d71a19f7a303f77b9bf42",
  "domain": "local",
  "kind": "transfer"
}
');
INSERT INTO "verdicts" VALUES ('sla_01a1fe50ed67720fa65a650470af5186', 1, 'unit_01a1fe50c1fe71c0b933fe47689e5ab1', 'alloc_01a1fe50c4e979c58963cbdf60e167bc/1', 'alloc_01a1fe50c4e979c58963cbdf60e167bc', '{
  "v": 1,
  "id": "sla_01a1fe50ed67720fa65a650470af5186",
  "domain": "local",
  "subject": {
    "allocation": "alloc_01a1fe50c4e979c58963cbdf60e167bc"
  },
  "unit": "unit_01a1fe50c1fe71c0b933fe47689e5ab1",
  "allocation": "alloc_01a1fe50c4e979c58963cbdf60e167bc",
  "period_key": "alloc_01a1fe50c4e979c58963cbdf60e167bc/1",
  "period": 1,
  "from": 1795268076598954,
  "to": 1795268078937270,
  "metrics": {
    "latency_avg": {
      "observed": 5782,
      "target": 50000,
      "met": true
    },
    "upload": {
      "observed": 214954721,
      "target": 1000000,
      "met": true
    },
    "download": {
      "observed": 674488059,
      "target": 1000000,
      "met": true
    },
    "uptime": {
      "observed": 1000000,
      "target": 999500,
      "met": true
    },
    "error_rate": {
      "observed": 0,
      "target": 100,
      "met": true
    }
  },
  "coverage": 500000,
  "status": "met",
  "credit": 0,
  "payment": "47530586555",
  "credited": "0",
  "attribution": "none",
  "evidence_root": "0x7f62e54a344518726b9177d12f499a5307fd3f0bc832ccb14306ccba12734243",
  "evidence_key": "sla/170f47ae1433090f167664ce176c820710bd039f1a88671986e03d483d1b7395",
  "created_at": 1795268078951566
}
');
PRAGMA user_version = 3;
