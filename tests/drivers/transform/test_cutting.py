"""Which numbers of heads may be left. What is written is in test_prune."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_models import config_of, random_module, silent, source_of

from llmos.drivers.transform import cutting, shards
from llmos.syscalls.errors import BadArgument


@pytest.mark.parametrize(("kind", "share", "left"), [("mistral", 0.25, 3), ("mistral", 0.5, 2), ("llama", 0.5, 2)])
def test_as_many_groups_stay_as_were_asked_for(kind: str, share: float, left: int, tmp_path: Path) -> None:
    sizes = {"num_attention_heads": 4, "num_key_value_heads": 4, "num_hidden_layers": 1}
    random_module(config_of(kind, **sizes)).save_pretrained(tmp_path / "m")
    (tmp_path / "out").mkdir()
    with shards.opened(source_of(tmp_path / "m")) as model:
        config = shards.config_of(model.source)
        report = cutting.without_heads(model, config, share, tmp_path / "out", silent)
        assert report["removed"] == 4 - left
        with pytest.raises(BadArgument, match="the parts of them that can go"):
            cutting.without_heads(model, config, 0.0, tmp_path / "out", silent)
    assert shards.config_of(source_of(tmp_path / "out"))["num_key_value_heads"] == left
