from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmos.drivers.filesystems.models.card import Card, parse_card, read_card

WHOLE = """---
# a comment
license: "apache-2.0"
language:
- en
  # another
- 'de'
pipeline_tag: text-generation
tags: [chat, small]
base_model: acme/base   # where it comes from
base_model_relation: quantized
datasets:
  - acme/words
model-index:
- name: deep
  results: {}
long: |
  text
---
# A model

It speaks.
"""


def test_a_card_says_who_may_use_it_for_what_and_made_from_what() -> None:
    card = parse_card(WHOLE)
    assert card.fields() == {
        "licence": "apache-2.0", "languages": ["en", "de"], "tags": ["chat", "small"], "tasks": ["text-generation"],
        "datasets": ["acme/words"], "parents": [{"path": "acme/base", "version": "", "how": "quantized"}],
    }  # fmt: skip
    assert card.text == "# A model\n\nIt speaks."


@pytest.mark.parametrize(
    ("front", "fields"),
    [
        ("license: other\nlicense_name: acme-1", {"licence": "acme-1"}),
        ("license: other", {"licence": "other"}),
        ("license:\n- mit\n- gpl-3.0", {"licence": "mit"}),
        ("language: en", {"languages": ["en"]}),
        ("languages: [en, , fr]", {"languages": ["en", "fr"]}),
        ("base_model:\n- a/b\n- c/d\nbase_model_relation: stirred",
         {"parents": [{"path": path, "version": "", "how": "finetune"} for path in ("a/b", "c/d")]}),
        ("license: null\ntags: ~", {}),
        ("license: {a: b}\n  nested: 1", {}),
        ("tags:\n- name: deep\n- flat", {"tags": ["flat"]}),
    ],
)  # fmt: skip
def test_front_matter_line_by_line(front: str, fields: dict[str, object]) -> None:
    assert parse_card(f"---\n{front}\n---\n").fields() == fields


@pytest.mark.parametrize("text", ["", "no front matter", "---\nlicense: mit\nnever ended", " ---\nlicense: mit\n---"])
def test_a_text_without_front_matter_is_only_text(text: str) -> None:
    assert parse_card(text) == Card({}, text)


@given(st.text())
def test_no_text_is_refused(text: str) -> None:
    parse_card("---\n" + text + "\n---\nx").fields()


def test_what_cannot_be_read_says_nothing(tmp_path: Path) -> None:
    assert read_card(tmp_path / "README.md") == Card()
    (tmp_path / "README.md").write_bytes(b"\xef\xbb\xbf---\nlicense: mit\n---\n\xff")
    assert read_card(tmp_path / "README.md").fields() == {"licence": "mit"}
