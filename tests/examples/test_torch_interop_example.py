"""The page of conversions equals the output of its command."""

from examples import torch_interop


def test_the_page_is_current():
    """``python -m examples.torch_interop`` writes it again when converters change."""
    assert torch_interop.PAGE.read_text() == torch_interop.page()


def test_the_lists_have_no_name_twice():
    """A layer has one kind of module, and a module is either converted or refused."""
    for lists in (torch_interop.classes(), torch_interop.sources()):
        names = [name for those in lists.values() for name in those]
        assert len(names) == len(set(names))
        assert all(lists.values())


def test_the_command_writes_the_page(tmp_path, monkeypatch, capsys):
    """The command prints the page too."""
    monkeypatch.setattr(torch_interop, "PAGE", tmp_path / "page.md")
    torch_interop.main()
    assert (tmp_path / "page.md").read_text() == torch_interop.page() == capsys.readouterr().out[:-1]
