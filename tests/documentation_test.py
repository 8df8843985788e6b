"""What the documents point at exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md"))]
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_relative_links_lead_somewhere(path):
    links = LINK.findall(path.read_text(encoding="utf-8"))
    missing = [
        link
        for link in links
        if "://" not in link and not (path.parent / link).exists()
    ]
    assert missing == []


def test_documents_are_found_and_linked():
    names = {path.name for path in DOCUMENTS}
    assert {"README.md", "CONTRIBUTING.md", "reproduce.md", "runs.md"} <= names
    everything = " ".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    linked = {Path(link).name for link in LINK.findall(everything)}
    pages = {path.name for path in DOCUMENTS if path.parent.name == "docs"}
    assert pages - linked == set()
