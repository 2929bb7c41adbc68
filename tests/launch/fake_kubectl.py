"""A kubectl for tests, in this process: keeps what is applied as JSON in a folder.

A JobSet's terminal state is what the file state-NAME holds.
"""

import json
import pathlib

import yaml

from gpicl_flax.launch.system import Answer


class Kubectl:
    """Answers calls, and keeps them."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.calls: list[list[str]] = []
        folder.mkdir()

    def verbs(self) -> list[str]:
        return [next(word for word in call if not word.startswith("-")) for call in self.calls]

    def applied(self, kind: str, name: str) -> dict:
        return json.loads((self.folder / f"{kind}-{name}.json").read_text())

    def end(self, name: str, state: str) -> None:
        """Lets a JobSet end: Completed or Failed."""
        (self.folder / f"state-{name}").write_text(state)

    def __call__(self, argv: list[str]) -> Answer:
        self.calls.append(argv)
        skipped = ("--namespace=", "--context=", "--wait", "--ignore-not-found")
        verb, *rest = [word for word in argv if not word.startswith(skipped)]
        if verb == "apply":
            assert rest[0] == "-f"
            return self._apply(pathlib.Path(rest[1]))
        if verb == "get" and rest[1] != "-l":
            return self._get(*rest)
        assert verb in ("get", "delete"), argv
        if "-l" in rest:
            label = rest[rest.index("-l") + 1]
            kinds = rest[0].split(",")
            paths = [path for kind in kinds for path in sorted(self.folder.glob(f"{kind}-*.json"))]
            paths = [path for path in paths if self._has(path, label)]
        else:
            paths = [self.folder / f"{rest[0]}-{rest[1]}.json"]
        for path in paths if verb == "delete" else ():
            path.unlink(missing_ok=True)
            (self.folder / f"state-{path.stem.partition('-')[2]}").unlink(missing_ok=True)
        return Answer(0, "\n".join(path.stem.replace("-", "/", 1) for path in paths), "")

    def _apply(self, path: pathlib.Path) -> Answer:
        for manifest in yaml.safe_load_all(path.read_text()):
            kept = self.folder / f"{manifest['kind'].lower()}-{manifest['metadata']['name']}.json"
            kept.write_text(json.dumps(manifest))
        return Answer(0, "created", "")

    def _get(self, kind: str, name: str, _: str, form: str) -> Answer:
        path = self.folder / f"{kind}-{name}.json"
        if not path.exists():
            return Answer(1, "", f'Error from server (NotFound): {kind}s.x-k8s.io "{name}" not found')
        if kind != "jobset":
            return Answer(0, f"{kind}/{name}", "")
        assert form == "jsonpath={.metadata.labels.gpicl-digest} {.status.terminalState}"
        state = self.folder / f"state-{name}"
        digest = json.loads(path.read_text())["metadata"]["labels"]["gpicl-digest"]
        return Answer(0, f"{digest} {state.read_text() if state.exists() else ''}", "")

    def _has(self, path: pathlib.Path, label: str) -> bool:
        key, _, value = label.partition("=")
        return json.loads(path.read_text())["metadata"]["labels"].get(key) == value
