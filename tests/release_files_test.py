"""The files that tell people about a release say what the package is."""

import pathlib
import re

import yaml

import gpicl_flax

ROOT = pathlib.Path(__file__).parents[1]


def test_the_changelog_has_the_version_and_what_comes_after_it():
    text = (ROOT / "CHANGELOG.md").read_text()
    headings = re.findall(r"^## (.+)$", text, re.M)
    assert headings[0] == "[Unreleased]"
    versions = [re.fullmatch(r"\[(\d+\.\d+\.\d+)\] - \d{4}-\d{2}-\d{2}", heading)[1] for heading in headings[1:]]
    assert versions[0] == gpicl_flax.__version__
    kinds = set(re.findall(r"^### (.+)$", text, re.M))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_citation_is_of_this_version_and_names_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["version"] == gpicl_flax.__version__ and citation["license"] == "Apache-2.0"
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert f"## [{citation['version']}] - {citation['date-released']}" in changelog
    (paper,) = citation["references"]
    names = [f"{author['given-names']} {author['family-names']}" for author in paper["authors"]]
    assert names == ["Louis Kirsch", "James Harrison", "Jascha Sohl-Dickstein", "Luke Metz"]
    assert paper["url"].endswith("2212.04458")
