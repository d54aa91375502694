"""Putting punctuation back: speeches in lower case without it, and which mark follows each word.

Between two words the inputs have a sentinel, as the gaps of span corruption do, and the targets say
for each what stands there; a space is no mark:

    text     To be, or not to be: that is the question
    inputs   to <0> be <1> or <2> not <3> to <4> be <5> that <6> is <7> the <8> question
    targets  <0>_<1>,<2>_<3>_<4>_<5>:<6>_<7>_<8>_    (_ is a space)

Decoded, sentinels fall out of the targets, and a letter is left for each gap.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from t5x.data import Feature
from t5x.examples.shakespeare import plays

MARKS = ",.;:?!-"  # - is a dash
NO_MARK = " "

#: Bytes of a piece, its gaps included: with EOS, the inputs of 128 bytes that are pretrained on.
PIECE_BYTES = 127

_WORD = re.compile(r"('?\w+(?:['-]\w+)*'?)([^\w\s']*)")


def words_and_marks(text: str) -> tuple[list[str], str]:
    """The words of a text in lower case, and the mark after each as a letter of a string."""
    words, marks = [], []
    for word, after in _WORD.findall(text.lower()):
        found = [mark for mark in after if mark in MARKS[:-1]] + ["-"] * ("--" in after)
        words.append(word)
        marks.append(found[0] if found else NO_MARK)
    return words, "".join(marks)


def pieces(split: str) -> list[dict[str, str]]:
    """{"play", "words", "marks"}: speeches in pieces of `PIECE_BYTES`, words with spaces between.

    The last word of a piece has no mark. Pieces of one word are left out.
    """
    found = []
    for play, text in plays.plays_of(split).items():
        for speech in plays.speeches(text):
            words, marks = words_and_marks(" ".join(speech))
            for start, end in _cuts(words):
                piece = {"words": " ".join(words[start:end]), "marks": marks[start : end - 1]}
                found.append({"play": play, **piece})
    return found


def _cuts(words: Sequence[str]) -> Iterator[tuple[int, int]]:
    """[start, end) of the pieces of a speech."""
    start = 0
    while start < len(words) - 1:
        ends = np.cumsum([len(word) + 1 for word in words[start:]]) - 1
        end = start + max(int(np.searchsorted(ends, PIECE_BYTES, side="right")), 1)
        if end > start + 1:
            yield start, end
        start = end


def with_sentinels(example: Mapping[str, str], output_features: Mapping[str, Feature]) -> dict:
    """A preprocessor: `words` and `marks` to `inputs` and `targets` int [L], without EOS."""
    vocabulary = output_features["inputs"].vocabulary
    inputs, targets = [], []
    for gap, word in enumerate(example["words"].split(" ")):
        if gap:
            sentinel = vocabulary.vocab_size - gap
            inputs.append(sentinel)
            targets += [sentinel, *vocabulary.encode(example["marks"][gap - 1])]
        inputs += vocabulary.encode(word)
    return {**example, "inputs": np.asarray(inputs), "targets": np.asarray(targets)}


def mark_scores(targets: Sequence[str], predictions: Sequence[str]) -> dict[str, float]:
    """How well marks were put, in percent, over all gaps of all texts.

    Args:
      targets: a letter for each gap, `NO_MARK` for none.
      predictions: the same; what is missing counts as no mark, what is too much is not read.

    Returns:
      precision, recall and f1 of the right mark in the right gap; place_f1, of any mark where
      there is one.
    """
    count: Counter = Counter()
    for target, prediction in zip(targets, predictions, strict=True):
        for a, b in zip(target, prediction.ljust(len(target))):
            count["asked"] += a in MARKS
            count["given"] += b in MARKS
            count["placed"] += a in MARKS and b in MARKS
            count["right"] += a in MARKS and a == b
    asked, given = max(count["asked"], 1), max(count["given"], 1)
    total = max(count["asked"] + count["given"], 1)
    return {
        "precision": 100.0 * count["right"] / given,
        "recall": 100.0 * count["right"] / asked,
        "f1": 200.0 * count["right"] / total,
        "place_f1": 200.0 * count["placed"] / total,
    }


def commonest_marks(split: str = "validation", neighbours: int = 1) -> dict[str, float]:
    """Scores of a table instead of a model: what most often stood there in the training plays.

    Looked up is the word before the gap, or with `neighbours` 2 the words around it if they were
    seen together; then the word before, then nothing.
    """
    orders = range(neighbours, 0, -1)
    training = pieces("train")
    tables = [_commonest(training, words) for words in orders]
    targets, predictions = [], []
    for piece in pieces(split):
        gaps = zip(*[_around(piece, words) for words in orders])
        known = [
            next((table[key] for table, key in zip(tables, keys) if key in table), NO_MARK)
            for keys in gaps
        ]
        targets.append(piece["marks"])
        predictions.append("".join(known))
    return mark_scores(targets, predictions)


def _commonest(training: Sequence[Mapping[str, str]], words: int) -> dict[tuple[str, ...], str]:
    """The commonest mark after each word, or between each two."""
    counts: Counter = Counter()
    for piece in training:
        counts.update(zip(_around(piece, words), piece["marks"]))
    table: dict[tuple[str, ...], str] = {}
    for (key, mark), _ in counts.most_common():
        table.setdefault(key, mark)
    return table


def _around(piece: Mapping[str, str], words: int) -> Iterator[tuple[str, ...]]:
    """For each gap the word before it, or the two around it."""
    each = piece["words"].split(" ")
    return zip(each[:-1], *[each[1:]] * (words - 1))
