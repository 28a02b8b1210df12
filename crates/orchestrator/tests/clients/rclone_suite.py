"""rclone, as it comes, against the built-in server: S3 URL, admin URL, admin token, rclone, a scratch directory."""

import os
import pathlib
import subprocess
import sys

from admin import Admin

s3_url, admin_url, token, rclone, scratch = sys.argv[1:6]
admin = Admin(admin_url, token)
bucket = admin.allocate("rclone-one", 64 << 20)
access_key, secret = admin.key("rclone-one", "AKRCLONE")
config = {
    "RCLONE_CONFIG": os.devnull,
    "RCLONE_CONFIG_MARKET_TYPE": "s3",
    "RCLONE_CONFIG_MARKET_PROVIDER": "Other",
    "RCLONE_CONFIG_MARKET_ACCESS_KEY_ID": access_key,
    "RCLONE_CONFIG_MARKET_SECRET_ACCESS_KEY": secret,
    "RCLONE_CONFIG_MARKET_ENDPOINT": s3_url,
    "RCLONE_CONFIG_MARKET_REGION": "local",
    "RCLONE_CONFIG_MARKET_FORCE_PATH_STYLE": "true",
}
# What this machine says of proxies and of other clouds is none of this test's business.
environment = {k: v for k, v in os.environ.items() if "proxy" not in k.lower() and not k.startswith("AWS_")} | config


def run(*arguments, fails=False):
    command = [rclone, *arguments, "--retries", "1", "--low-level-retries", "1", "--contimeout", "10s"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode != 0) == fails, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


source, back = pathlib.Path(scratch, "source"), pathlib.Path(scratch, "back")
(source / "deep" / "er").mkdir(parents=True)
(source / "small.txt").write_text("small")
(source / "empty").write_bytes(b"")
(source / "deep" / "ünï cödé & more.txt").write_text("name")
(source / "deep" / "er" / "big.bin").write_bytes(os.urandom((11 << 20) + 7))
remote = f"market:{bucket}/tree"
parts = ["--s3-upload-cutoff", "5M", "--s3-chunk-size", "5M"]

assert run("lsd", "market:").split()[-1] == bucket
run("sync", str(source), remote, *parts)
run("check", str(source), remote)
run("check", "--download", str(source), remote)
assert "big.bin" in run("lsf", "-R", remote)
run("sync", remote, str(back))
for path in source.rglob("*"):
    if path.is_file():
        assert (back / path.relative_to(source)).read_bytes() == path.read_bytes(), path

# What is gone and what has changed follows; a second run has nothing to do.
(source / "small.txt").unlink()
(source / "empty").write_text("not any more")
run("sync", str(source), remote, *parts)
run("check", str(source), remote)
run("copyto", remote + "/empty", remote + "/copied")
assert run("cat", remote + "/copied") == "not any more"
run("touch", "--timestamp", "2020-01-02T03:04:05", remote + "/copied")
assert "2020-01-02 03:04:05" in run("lsl", remote + "/copied")

admin.restrict("rclone-one", "read_only")
run("copyto", str(source / "empty"), remote + "/new", fails=True)
run("cat", remote + "/copied")
admin.restrict("rclone-one", "full")
run("purge", remote)
assert admin.usage("rclone-one")["stored"] == 0
admin.revoke("rclone-one", access_key)
run("lsf", remote, fails=True)
