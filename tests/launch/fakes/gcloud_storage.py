"""`gcloud storage` for tests: gs:// is a folder, or the storage server that $STORAGE_EMULATOR_HOST names."""

import contextlib
import fnmatch
import json
import os
import pathlib
import sys

# Other imports are in the functions: a script calls this many times.


class Folder:
    """gs:// as a folder with a folder for each bucket. Names are those of objects, with their bucket."""

    def __init__(self, path):
        self.path = path

    def read(self, name):
        """Returns the data, or None if there is no such object."""
        path = self.path / name
        return path.read_bytes() if path.is_file() else None

    def write(self, name, data):
        write_whole(self.path / name, data)

    def remove(self, name):
        (self.path / name).unlink()

    def names(self, prefix):
        found = (path.relative_to(self.path).as_posix() for path in self.path.rglob("*") if path.is_file())
        return sorted(name for name in found if name.startswith(prefix))


class Server:
    """gs:// on a storage server that speaks the JSON API."""

    def __init__(self, url):
        self.url = url

    def read(self, name):
        return self._ask("GET", self._object(name) + "?alt=media")

    def write(self, name, data):
        bucket, _, rest = name.partition("/")
        self._ask("POST", f"upload/storage/v1/b/{bucket}/o?uploadType=media&name={quoted(rest)}", data)

    def remove(self, name):
        self._ask("DELETE", self._object(name))

    def names(self, prefix):
        bucket, _, rest = prefix.partition("/")
        found, token = [], ""
        while True:
            page = self._ask("GET", f"storage/v1/b/{bucket}/o?prefix={quoted(rest)}&pageToken={token}")
            page = json.loads(page or b"{}")
            found += [f"{bucket}/{item['name']}" for item in page.get("items", [])]
            token = page.get("nextPageToken", "")
            if not token:
                return found

    def _object(self, name):
        bucket, _, rest = name.partition("/")
        return f"storage/v1/b/{bucket}/o/{quoted(rest)}"

    def _ask(self, method, path, data=None):
        """Returns what the server answers, or None for 404. Tries again as gcloud does, for some seconds."""
        import time
        import urllib.error
        import urllib.request

        headers = {"User-Agent": "gcloud", "Content-Type": "application/octet-stream"}
        request = urllib.request.Request(f"{self.url}/{path}", data, headers, method=method)
        for pause in (0.1, 0.5, 2.0, None):
            try:
                with urllib.request.urlopen(request, timeout=60) as response:
                    return response.read()
            except urllib.error.HTTPError as error:
                if error.code == 404:
                    return None
                if pause is None or error.code not in (408, 429, 500, 502, 503, 504):
                    raise SystemExit(f"ERROR: (gcloud.storage) HTTPError {error.code}: {error.reason}") from None
            except OSError as error:  # no connection
                if pause is None:
                    raise SystemExit(f"ERROR: (gcloud.storage) {error}") from None
            time.sleep(pause)


def quoted(name):
    from urllib.parse import quote

    return quote(name, safe="")


def write_whole(path, data):
    """Writes a file that appears whole, as objects do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    partial.write_bytes(data)
    partial.rename(path)


def main(folder, argv):
    """Runs a command; `folder` is gs:// where there is no server."""
    server = os.environ.get("STORAGE_EMULATOR_HOST")
    storage = Server(server) if server else Folder(folder)
    verb, paths = argv[0], [a for a in argv[1:] if not a.startswith("-")]
    if verb not in COMMANDS:
        raise SystemExit(f"ERROR: (gcloud.storage) Invalid choice: {verb!r}")
    if verb == "rsync":
        assert sorted(a for a in argv[1:] if a.startswith("-")) == ["--quiet", "--recursive"]
    COMMANDS[verb](storage, *paths)


def copy(storage, source, target):
    data = read(storage, source)
    if data is None:
        raise SystemExit(f"ERROR: (gcloud.storage.cp) The following URLs matched no objects or files:\n{source}")
    write(storage, target, data)


def synchronise(storage, source, target):
    """Copies what is not the same at the target; leaves alone what is only there."""
    names = names_below(storage, source)
    if not names or not (target.startswith("gs://") or pathlib.Path(target).is_dir()):
        raise SystemExit(f"ERROR: (gcloud.storage.rsync) Did not find existing container at: {source} {target}")
    there = set(names_below(storage, target))
    for name in names:
        data = read(storage, f"{source}/{name}")
        if name not in there or read(storage, f"{target}/{name}") != data:
            write(storage, f"{target}/{name}", data)


def show(storage, url):
    data = read(storage, url)
    if data is None:
        raise SystemExit(f"ERROR: (gcloud.storage.cat) The following URLs matched no objects or files:\n{url}")
    sys.stdout.write(data.decode())


def remove(storage, url):
    if read(storage, url) is None:
        raise SystemExit(f"ERROR: (gcloud.storage.rm) The following URLs matched no objects or files:\n{url}")
    storage.remove(url.removeprefix("gs://"))


def list_matching(storage, pattern):
    name = pattern.removeprefix("gs://")
    found = [n for n in storage.names(name.partition("*")[0]) if fnmatch.fnmatchcase(n, name)]
    if not found:
        raise SystemExit("ERROR: (gcloud.storage.ls) One or more URLs matched no objects.")
    for name in found:
        print(f"gs://{name}")


COMMANDS = {"cp": copy, "rsync": synchronise, "cat": show, "rm": remove, "ls": list_matching}


def read(storage, path):
    if path.startswith("gs://"):
        return storage.read(path.removeprefix("gs://"))
    with contextlib.suppress(FileNotFoundError):
        return pathlib.Path(path).read_bytes()
    return None


def write(storage, path, data):
    if path.startswith("gs://"):
        storage.write(path.removeprefix("gs://"), data)
    else:
        write_whole(pathlib.Path(path), data)


def names_below(storage, folder):
    """Returns the names of the files or objects below a folder, relative to it."""
    if folder.startswith("gs://"):
        prefix = folder.removeprefix("gs://") + "/"
        return [name.removeprefix(prefix) for name in storage.names(prefix)]
    root = pathlib.Path(folder)
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
