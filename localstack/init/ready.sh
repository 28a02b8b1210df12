#!/usr/bin/env bash
# Runs inside LocalStack when it is ready. What the daemon needs is made by `orchestrator setup`; this only loads the services, so that
# the first call of each is not slow, and fails loudly when one is missing.
set -euo pipefail
awslocal sqs list-queues
awslocal s3api list-buckets
awslocal sns list-topics
awslocal events list-event-buses
