"""README and pages: every link leads somewhere, every page is listed, every command that they print exists."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from tracker_pipeline.cli import app
from tracker_pipeline.commands.project import PROJECT

PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]


def commands(text: str) -> list[str]:
    """The `tracker` commands of the indented and fenced blocks, without comments and what follows them."""
    fenced = "".join(re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
    indented = "\n".join(re.findall(r"^ {4,}(tracker .*)$", text, re.MULTILINE))
    parts = re.split(r"\n|&&", f"{fenced}\n{indented}".replace("\\\n", " "))
    plain = [re.sub(r"^(?:\.venv/bin/)?tracker ", "tracker ", part.strip()) for part in parts]
    return [part for part in plain if part.startswith("tracker ")]


FOUND = [(page.name, command) for page in PAGES for command in commands(page.read_text("utf-8"))]


@pytest.mark.parametrize(("page", "command"), FOUND)
def test_a_command_of_a_page_is_one_that_the_program_has(page, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, *words = shlex.split(command.replace("PATH…", "bars.csv"), comments=True)
    for word in words:
        if re.fullmatch(r"[\w.-]+\.(gz|csv|parquet)", word):  # the reader's own file
            Path(word).touch()
    group = typer.main.get_command(app)
    while words and hasattr(group, "commands"):
        group = group.commands[words.pop(0)]
    group.make_context("tracker", words)


def test_the_commands_of_the_pages_are_found():
    assert ("README.md", "tracker doctor             # what is wrong, in words") in FOUND
    assert len(FOUND) > 25


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file_of_the_project(page):
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text("utf-8"))
    assert not [link for link in links if "://" not in link and not (page.parent / link).exists()]


def test_the_readme_lists_every_page():
    readme = (PROJECT / "README.md").read_text("utf-8")
    assert not [page.name for page in PAGES[1:] if f"(docs/{page.name})" not in readme]
