"""The check of the built site finds each error on a site made for it, and none on a correct site."""

import zlib
from collections import Counter

import pytest

from docs import check_site

SOUND = {
    "index.html": '<link rel="stylesheet" href="site.css"><img src="a.png"><a href="sub/page.html#there">x</a> <a href="#top" id="top">',
    "sub/page.html": '<p id="there"><a href="../index.html?q=1#top">x</a><a href="https://example.org/">elsewhere</a>',
    "site.css": "@font-face { src: url(font.woff) }",
    "a.png": "",
}


@pytest.fixture
def site(tmp_path):
    """Return a function that writes a site with given files."""

    def write(files):
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
        return tmp_path

    return write


def test_a_sound_site_has_no_faults(site):
    """Links to other sites are not tried."""
    assert [*check_site.broken_links(site(SOUND))] == []
    assert [*check_site.loads_from_elsewhere(site(SOUND))] == []


@pytest.mark.parametrize(
    ("link", "fault"),
    [
        ("nowhere.html", "index.html: no file for nowhere.html"),
        ("sub/page.html#nowhere", "index.html: no anchor for sub/page.html#nowhere"),
        ("#nowhere", "index.html: no anchor for #nowhere"),
        ("sub", "index.html: no file for sub"),
    ],
)
def test_a_broken_link_is_found(site, link, fault):
    """The link is to a file, a folder, or an anchor of another page or the same one."""
    assert [*check_site.broken_links(site(SOUND | {"index.html": f'<a id="top" href="{link}">x</a>'}))] == [fault]


def test_a_picture_that_is_missing_is_found(site):
    """Files that a page loads are checked like links."""
    assert [*check_site.broken_links(site(SOUND | {"index.html": '<img id="top" src="b.png">'}))] == [
        "index.html: no file for b.png"
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("index.html", '<script src="https://cdn.example.org/a.js"></script>'),
        ("index.html", '<link rel="preconnect" href="//fonts.example.org">'),
        ("site.css", "@import 'https://fonts.example.org/a.css';"),
        ("site.css", "@font-face { src: url(https://fonts.example.org/a.woff) }"),
    ],
)
def test_what_comes_from_elsewhere_is_found(site, name, text):
    """Scripts, links of the head, styles and fonts are checked."""
    (fault,) = check_site.loads_from_elsewhere(site(SOUND | {name: text}))
    assert fault.startswith(f"{name} loads ")


def test_names_without_an_entry_and_with_two_are_found():
    """Only Python objects count."""
    rows = "a.f py:function 1 p.html#$ -\na.f py:method 1 q.html#$ -\na.g py:class 1 p.html#$ -\na.h std:label 1 p.html#$ -\n"
    inventory = b"# Sphinx inventory version 2\n# Project: a\n# Version: 1\n# compressed using zlib.\n" + zlib.compress(
        rows.encode()
    )
    found = check_site.entries(inventory)
    assert found == Counter({"a.f": 2, "a.g": 1})
    assert [*check_site.wrong_names(found, ["a.f", "a.g", "a.h"])] == ["a.f has 2 entries", "a.h has 0 entries"]


def test_the_command_needs_a_folder(capsys):
    """Without one it raises an error."""
    assert check_site.main([]) == 2
    assert "usage" in capsys.readouterr().err
