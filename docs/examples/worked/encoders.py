"""A small encoder of one's own: a tokenizer from raw text, random weights, and a head once the text is known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

transformers.logging.set_verbosity_error()  # that a new head has new weights is what is wanted here
transformers.logging.disable_progress_bar()
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def tokenizer(texts: Iterable[str], size: int, lowercase: bool) -> transformers.PreTrainedTokenizerFast:
    """Word pieces that are learned from the raw text, cased or not."""
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece(prefix="##")
    made.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=size, special_tokens=list(SPECIAL), show_progress=False)
    )
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, made.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]",
        mask_token="[MASK]", model_max_length=128,
    )  # fmt: skip


def blank(folder: Path, texts: Sequence[str], size: int, lowercase: bool, width: int) -> Path:
    """A BERT that knows nothing yet, with a tokenizer that knows so many pieces of these texts."""
    pieces = tokenizer(texts, size, lowercase)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(pieces), hidden_size=width, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=2 * width, max_position_embeddings=128, pad_token_id=pieces.pad_token_id,
    )  # fmt: skip
    transformers.BertForMaskedLM(config).save_pretrained(folder)
    pieces.save_pretrained(folder)
    return folder


def with_head(folder: Path, kind: str, labels: Sequence[str], out: Path) -> Path:
    """The encoder of a folder under a new head of classes, as another folder."""
    torch.manual_seed(1)
    names = dict(enumerate(labels))
    heads = {
        "tokens": transformers.BertForTokenClassification,
        "texts": transformers.BertForSequenceClassification,
    }
    back = {name: number for number, name in names.items()}
    heads[kind].from_pretrained(folder, id2label=names, label2id=back).save_pretrained(out)
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(out)
    return out
