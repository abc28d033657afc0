"""Programs of other projects that tests run against, and the Debian packages that have them.

A test that needs one asks here for it: without it the test skips and names the package; in CI (CI=true) it fails instead.
"""

import os
import shutil
import socket

import pytest

# Where Debian puts servers; not everybody has it on the path. What the tests start finds them, too.
os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])

#: .ci/run installs all of these, and CONTRIBUTING.md lists them.
DEBIAN_PACKAGES = {
    "nats-server": "nats-server",
    "redis-server": "redis-server",
    "chromium": "chromium",
    "chromedriver": "chromium-driver",
    "clang": "clang libclang-rt-14-dev",
    "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
    "aarch64-linux-gnu-ar": "binutils-aarch64-linux-gnu",
    "qemu-aarch64": "qemu-user",
    "nginx": "nginx-light",
    "openssl": "openssl",
    "curl": "curl",
}


def require_program(name: str) -> str:
    """Return the path of a program, or skip the test that asks; in CI the test fails."""
    path = shutil.which(name)
    if path is None:
        reason = f"without {name} (Debian: {DEBIAN_PACKAGES[name]})"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason}: CI runs every test")
        pytest.skip(reason)
    return path


def free_port() -> int:
    """Return a port of this machine that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
