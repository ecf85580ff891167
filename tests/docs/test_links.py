"""Every link between the project's pages leads somewhere."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_LISTED = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
    cwd=ROOT, capture_output=True, text=True, check=True,
).stdout  # fmt: skip
# Templates become pages elsewhere.
_PAGES = sorted(
    path for it in _LISTED.splitlines() if (path := ROOT / it).is_file() and "_template" not in it
)

pytestmark = pytest.mark.fast


def _anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", _PAGES, ids=lambda it: str(it.relative_to(ROOT)))
def test_links_and_pictures_are_there(page: Path) -> None:
    prose = re.sub(r"^ {4}.*\n", "", page.read_text(), flags=re.MULTILINE)
    links = re.findall(r"\]\(([^)\s]+)\)", prose) + re.findall(r'src="([^"]+)"', prose)
    for target in links:
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        assert not anchor or anchor in _anchors(linked), target


def test_all_pages_can_be_reached_from_the_first() -> None:
    reached, found = set(), [ROOT / "README.md"]
    while found:
        page = found.pop()
        if page in reached or not page.is_file():
            continue
        reached.add(page)
        for target in re.findall(r"\]\(([^)\s#]+\.md)", page.read_text()):
            found.append((page.parent / target).resolve())

    apart = {page for page in _PAGES if page not in reached and "decisions" not in page.parts}
    assert {str(page.relative_to(ROOT)) for page in apart} == set()
