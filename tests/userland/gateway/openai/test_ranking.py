"""What is said of documents and labels; the routes are in `test_routes`."""

from __future__ import annotations

import pytest

from llmos.syscalls.errors import BadArgument
from llmos.userland.gateway.openai.ranking import _part, _text, findings


def test_texts_of_documents_and_inputs() -> None:
    assert _text("x", "d") == _text({"text": "x"}, "d") == "x"
    assert _part("x", 0) == _part({"type": "text", "text": "x"}, 0) == "x"
    with pytest.raises(BadArgument):
        _text({"title": "x"}, "documents[0]")
    with pytest.raises(BadArgument):
        _part({"type": "image_url"}, 0)


def test_each_label_is_a_category() -> None:
    assert findings({"toxic": 0.9, "safe": 0.99, "odd": 0.1}) == {
        "flagged": True, "categories": {"toxic": True, "safe": False, "odd": False},
        "category_scores": {"toxic": 0.9, "safe": 0.99, "odd": 0.1},
    }  # fmt: skip
    assert findings({"SAFE": 0.9})["flagged"] is False
