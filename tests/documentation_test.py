"""What the documents point at exists, and tables are what commands print."""

import re
import shlex
from pathlib import Path

import pytest

from afd_tf.cli import results

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md"))]
COMMAND = re.compile(r"^afd-results vanilla dml .*?(?<!\\)$", re.MULTILINE | re.DOTALL)
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


@pytest.mark.parametrize("path", [ROOT / "README.md", ROOT / "docs/study.md"])
def test_tables_of_the_study_are_what_their_command_prints(path, capsys, monkeypatch):
    text = path.read_text(encoding="utf-8")
    (command,) = COMMAND.findall(text)
    monkeypatch.chdir(ROOT / "studies/cifar100_reduced")
    assert results.main(shlex.split(command.replace("\\\n", " "))[1:]) == 0
    printed = [line for line in capsys.readouterr().out.splitlines() if "|" in line]
    assert len(printed) == 38
    assert [line for line in printed if line not in text.splitlines()] == []
