"""Runs pushed to a DVC remote: a second clone pulls them, and neither runner has anything to do there."""

import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from checkout import Checkout
from support import free_ports

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture
def s3() -> Iterator[str]:
    """URL of an S3 server with the bucket ``lab``."""
    import boto3
    from botocore.exceptions import EndpointConnectionError

    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            names = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
            client = boto3.client("s3", endpoint_url=url, **names)
            end = time.monotonic() + 120
            while True:
                try:
                    client.create_bucket(Bucket="lab")
                    break
                except EndpointConnectionError:
                    assert server.poll() is None
                    assert time.monotonic() < end
                    time.sleep(0.5)
            yield url
        finally:
            server.kill()


def second_clone_has_nothing_to_do(project: Checkout, second: Path, url: str, *options: str, **environment: str):
    """The documented commands, in a finished checkout and in a clone of it."""
    project.ok("dvc", "remote", "add", "--default", "lab", url)
    for name, value in zip(options[::2], options[1::2], strict=True):
        project.ok("dvc", "remote", "modify", "lab", name, value)
    project.ok("dvc", "commit", "--force", "--quiet")
    project.ok("git", "add", ".")
    project.ok("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "-m", "a plan and its results")
    project.ok("dvc", "push", **environment)
    project.ok("git", "clone", "--quiet", str(project.root), str(second))
    clone = Checkout(second)
    clone.ok("dvc", "pull", **environment)
    assert clone.outputs() == project.outputs()
    assert "up to date" in clone.ok("dvc", "status")
    assert "Nothing to be done" in clone.ok("snakemake", "-n")
    assert clone.made_by("edc", "run") == set()


def test_folder_remote(finished, tmp_path):
    second_clone_has_nothing_to_do(finished, tmp_path / "second", str(tmp_path / "shared"))


@pytest.mark.slow
@pytest.mark.skipif(not (find_spec("dvc_s3") and find_spec("moto")), reason="needs dvc-s3 and moto[server]")
def test_s3_remote(finished, tmp_path, request):
    url = request.getfixturevalue("s3")
    second_clone_has_nothing_to_do(finished, tmp_path / "second", "s3://lab/edc", "endpointurl", url, **KEYS)
