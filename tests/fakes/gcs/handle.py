"""The storage server as tests use it: `with FakeGcs() as gcs: ...`."""

import base64
import http.client
import json
import pathlib
import subprocess
import sys
from typing import Any, Self

ROOT = pathlib.Path(__file__).parents[3]


class FakeGcs:
    """A storage server in a process of its own, on a free port.

    Attributes:
        url: Its address.
        environment: The variables with which gcsfs, TensorStore and google-cloud-storage use it in place of Google's.
            They must be set before the first use of TensorStore on gs:// and the import of gcsfs.
    """

    def __init__(self, *buckets: str):
        """Starts the server with these buckets, by default one named 'bucket'."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.gcs.server", *(buckets or ("bucket",))],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        addresses = json.loads(self._process.stdout.readline())
        self._admin_address = addresses["admin"]
        self.url = f"http://{addresses['public']}"
        self.environment = {
            "STORAGE_EMULATOR_HOST": self.url,  # gcsfs, google-cloud-storage
            "TENSORSTORE_GCS_HTTP_URL": self.url,
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "token",  # TensorStore
            "GOOGLE_CLOUD_PROJECT": "project",
            "GCE_METADATA_ROOT": "127.0.0.1:9",  # no service of Google tells who we are
            "NO_GCE_CHECK": "true",
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # else gcsfs asks Google, by gRPC, what kind a bucket is
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process; all objects are gone."""
        self._process.communicate(timeout=60)

    def set_faults(self, **faults: Any) -> None:
        """Sets all faults: those given, see `tests.fakes.gcs.faults.Faults`, and none besides."""
        self._ask("set_faults", **faults)

    def clear_faults(self) -> None:
        self._ask("set_faults")

    def mark(self) -> None:
        """Empties the log of requests."""
        self._ask("mark")

    def requests(self) -> list[dict[str, Any]]:
        """Returns the requests since the last mark, as they came: the fields of `tests.fakes.gcs.server.Record`."""
        return self._ask("requests")

    def put(self, bucket: str, name: str, data: bytes) -> None:
        self._ask("put", bucket=bucket, name=name, data=base64.b64encode(data).decode())

    def objects(self, bucket: str, prefix: str = "") -> dict[str, bytes]:
        """Returns the data of all objects whose names begin with `prefix`, by their names."""
        found = self._ask("objects", bucket=bucket, prefix=prefix)
        return {name: base64.b64decode(data) for name, data in found.items()}

    def clone(self, bucket: str, source: str, target: str) -> None:
        """Copies all objects whose names begin with `source` to names that begin with `target` instead."""
        self._ask("clone", bucket=bucket, source=source, target=target)

    def clear(self) -> None:
        """Removes all objects."""
        self._ask("clear")

    def stop(self) -> None:
        """Begins an outage: breaks all connections and refuses new ones. The objects stay."""
        self._ask("stop")

    def start(self) -> None:
        """Ends an outage: the server listens on its port again."""
        self._ask("start")

    def _ask(self, what: str, **arguments: Any) -> Any:
        connection = http.client.HTTPConnection(self._admin_address, timeout=60)
        try:
            connection.request("POST", f"/{what}", json.dumps(arguments))
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        assert response.status == 200, f"{what}: {response.status} {content.decode()}"
        return json.loads(content)
