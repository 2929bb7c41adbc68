"""The options of `gcloud compute tpus` that launches use."""


class Options:
    """Takes the options that the real command has; raises ValueError for any other."""

    NEEDED = {"project", "zone"}
    MORE = {
        "create": {
            *("node-id", "accelerator-type", "runtime-version", "metadata-from-file", "scopes", "network"),
            *("subnetwork", "service-account", "spot", "quiet", "async"),
        },
        "describe": {"format"},
        "delete": {"force", "quiet", "async"},
        "list": {"format"},
        "ssh": {"worker", "command"},
    }
    FLAGS = {"spot", "quiet", "async", "force"}

    def __init__(self, verb, argv):
        if verb != "list":
            self.id, *argv = argv
        given = set()
        for word in argv:
            name, equals, value = word.removeprefix("--").partition("=")
            known = word.startswith("--") and name in self.NEEDED | self.MORE[verb]
            if not known or bool(equals) == (name in self.FLAGS) or (equals and not value):
                raise ValueError(f"argument {word}: wrong")
            given.add(name)
            setattr(self, name.replace("-", "_"), value)
        assert given >= self.NEEDED, f"{verb} without {self.NEEDED - given}"


def verb_and_rest(argv):
    """Returns the verb of a call and what follows."""
    if argv[:3] == ["compute", "tpus", "queued-resources"]:
        return argv[3], argv[4:]
    if argv[:4] == ["compute", "tpus", "tpu-vm", "ssh"]:
        return "ssh", argv[4:]
    raise ValueError(f"Invalid choice: {argv}")
