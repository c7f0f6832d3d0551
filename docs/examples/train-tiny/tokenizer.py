"""The tokenizer of the bundled model: byte-level BPE that splits names the same way wherever they stand.

A space belongs to the word after it only for a fixed list of common words; before anything else it is a token of its
own. So `acme` is the same tokens after a space, a slash or a quote, and copying a name is copying tokens. Digits and
punctuation are single tokens.
"""

import random
import re
from collections import Counter
from pathlib import Path

import grammar
from corpus import HERE, UNKNOWN, Corpus
from names import FAMILIES, NOUNS
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from llmos.userland.cli.table import COMMANDS

USER, ASSISTANT, END, PAD = "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>"
VOCABULARY = 3072
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}<|user|>{{ message['content'] | trim }}"
    "{% elif message['role'] == 'assistant' %}<|assistant|>{{ message['content'] | trim }}<|end|>{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def glued_words(docs: list[str], count: int = 500) -> list[str]:
    """Words that keep their space: those of the grammar and the most frequent ones of the docstrings."""
    words = Counter(word for doc in docs for word in re.findall(r"(?<= )[a-z]+(?=[ .,])", doc))
    frequent = {word for word, _ in words.most_common(count)}
    commands = {command.name for command in COMMANDS if command.name.isalpha()}
    found = frequent | grammar.vocabulary(grammar.read_grammar(HERE)) | commands | {UNKNOWN}
    return sorted(found - set(NOUNS) - set(FAMILIES), key=lambda word: (-len(word), word))


def train_tokenizer(docs: list[str], folder: Path) -> PreTrainedTokenizerFast:
    """Train on the docstrings and 60 000 drawn requests, and save in Hugging Face layout."""
    glued = "|".join(glued_words(docs))
    pattern = (
        rf" ?(?i:{glued})(?![A-Za-z0-9_./@-])| ?(?i:{glued})(?=\.(?:\s|$))"
        r"|[A-Z]?[a-z]+|[A-Z]+|\d|\n+| +|[-=*#_.]{3,}|[^\sA-Za-z\d]|\s"
    )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[PAD, END, USER, ASSISTANT], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    corpus = Corpus(docs, seed=1)
    drawn = [text for _ in range(60_000) for text in _texts(corpus)]
    random.Random(0).shuffle(drawn)
    tokenizer.train_from_iterator([*docs, *drawn], trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, pad_token=PAD, additional_special_tokens=[USER, ASSISTANT],
        clean_up_tokenization_spaces=False, model_max_length=512,
    )
    wrapped.chat_template = CHAT_TEMPLATE
    wrapped.save_pretrained(folder, save_jinja_files=False)
    return wrapped


def _texts(corpus: Corpus) -> tuple[str, str]:
    example = corpus.example()
    return example.request, example.command


def prompt_of(request: str) -> str:
    """What the chat template makes of one request, up to where the command starts."""
    return f"{USER}{request.strip()}{ASSISTANT}"
