"""Messages are one short line, which says nothing of where objects lie in memory."""

from hypothesis import given, settings
from hypothesis import strategies as st

from gpicl_flax.errors import brief, first_line, one_line


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.lists(st.text() | st.sampled_from(["<f at 0x7f12ab>", "/a" * 300, "word " * 80, "\n"])), st.integers(20, 400))
def test_any_text_becomes_one_short_line(parts, longest):
    text = brief(" ".join(parts), longest)
    assert len(text) <= longest and " at 0x7f12ab" not in text and len(text.splitlines()) <= 1


def test_short_texts_are_left_as_they_are_and_long_ones_keep_their_ends():
    assert brief("base dataset 'a' is not there") == "base dataset 'a' is not there"
    path = "/tmp/" + "folder/" * 40 + "file.gin"
    assert brief(f"no file {path} here; make one").startswith("no file /tmp/folder/")
    assert brief(f"no file {path} here; make one").endswith("folder/file.gin here; make one")
    assert brief("first " + "word " * 100 + "last").startswith("first word")
    assert brief("first " + "word " * 100 + "last").endswith("word last")
    assert one_line(ValueError("a\n  b <x at 0x12>")) == "a b <x>" and first_line(ValueError("a\nb")) == "a"
    assert one_line(ValueError()) == first_line(ValueError()) == "ValueError"
