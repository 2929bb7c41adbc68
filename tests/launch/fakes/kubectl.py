"""A kubectl for tests: keeps what is applied as JSON in $FAKE_KUBECTL, and logs its calls there.

A JobSet's terminal state is what the file state-NAME holds.
"""

import json
import os
import pathlib
import sys

import yaml

FOLDER = pathlib.Path(os.environ["FAKE_KUBECTL"])


def main(argv):
    with open(FOLDER / "calls.jsonl", "a") as log:
        log.write(json.dumps(argv) + "\n")
    argv = [a for a in argv if not a.startswith(("--namespace=", "--context=", "--wait", "--ignore-not-found"))]
    verb, rest = argv[0], argv[1:]
    if verb == "apply":
        assert rest[0] == "-f"
        for manifest in yaml.safe_load_all(pathlib.Path(rest[1]).read_text()):
            path = FOLDER / f"{manifest['kind'].lower()}-{manifest['metadata']['name']}.json"
            path.write_text(json.dumps(manifest))
            print(f"{manifest['kind'].lower()}/{manifest['metadata']['name']} created")
    elif verb == "get" and rest[1] != "-l":
        kind, name = rest[:2]
        path = FOLDER / f"{kind}-{name}.json"
        if not path.exists():
            raise SystemExit(f'Error from server (NotFound): {kind}s.x-k8s.io "{name}" not found')
        if kind == "jobset":
            assert rest[3] == "jsonpath={.metadata.labels.gpicl-digest} {.status.terminalState}"
            state = FOLDER / f"state-{name}"
            labels = json.loads(path.read_text())["metadata"]["labels"]
            print(labels["gpicl-digest"], state.read_text() if state.exists() else "")
    elif verb in ("get", "delete"):
        if "-l" in rest:
            label = rest[rest.index("-l") + 1]
            paths = [
                p for kind in rest[0].split(",") for p in sorted(FOLDER.glob(f"{kind}-*.json")) if matches(p, label)
            ]
        else:
            paths = [FOLDER / f"{rest[0]}-{rest[1]}.json"]
        for path in paths:
            kind, _, name = path.stem.partition("-")
            print(f"{kind}/{name}")
            if verb == "delete":
                path.unlink(missing_ok=True)
                (FOLDER / f"state-{name}").unlink(missing_ok=True)
    else:
        raise SystemExit(f"error: unknown command {argv}")


def matches(path, label):
    key, _, value = label.partition("=")
    return json.loads(path.read_text())["metadata"]["labels"].get(key) == value


main(sys.argv[1:])
