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


def printed_rows(arguments, capsys, monkeypatch):
    monkeypatch.chdir(ROOT / "studies/cifar100_reduced")
    assert results.main(arguments) == 0
    return [line for line in capsys.readouterr().out.splitlines() if "|" in line]


def test_the_table_of_the_study_is_what_its_command_prints(capsys, monkeypatch):
    text = (ROOT / "docs/study.md").read_text(encoding="utf-8")
    (command,) = COMMAND.findall(text)
    arguments = shlex.split(command.replace("\\\n", " "))[1:]
    printed = printed_rows(arguments, capsys, monkeypatch)
    assert len(printed) == 38
    assert [line for line in printed if line not in text.splitlines()] == []


def test_the_accuracies_of_the_readme_are_those_of_the_records(capsys, monkeypatch):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)`:.* \| (\d) \| (.+) \| (.+) \|$", text, re.MULTILINE)
    assert len(rows) == 5
    names = [row[0] for row in rows]
    printed = printed_rows([*names, "--format=markdown"], capsys, monkeypatch)
    for name, seeds, *accuracies in rows:
        start = next(
            i for i, row in enumerate(printed) if row.startswith(f"| {name} |")
        )
        assert f"| {seeds} |" in printed[start]
        for row, accuracy in zip(printed[start : start + 2], accuracies, strict=True):
            assert accuracy.replace("±", "+-") in row
