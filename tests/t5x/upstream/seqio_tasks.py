"""A user's module with a task of seqio, which nothing here knows."""

import functools

import seqio
import tensorflow as tf

from tests.t5x.upstream.tasks import WORDS, accuracy, likelihood

TASK = "upstream_user_seqio"


def dataset(split, shuffle_files, seed=None):
    """Words and the same from their end."""
    del shuffle_files, seed
    words = WORDS[:48] if split == "train" else WORDS[48:]
    pairs = {"inputs": words, "targets": [word[::-1] for word in words]}
    return tf.data.Dataset.from_tensor_slices(pairs)


if TASK not in seqio.TaskRegistry.names():
    seqio.TaskRegistry.add(
        TASK,
        source=seqio.FunctionDataSource(
            dataset,
            splits=("train", "validation"),
            num_input_examples={"train": 48, "validation": 16},
        ),
        preprocessors=[
            functools.partial(seqio.preprocessors.tokenize, copy_pretokenized=True),
            seqio.preprocessors.append_eos,
        ],
        output_features={
            "inputs": seqio.Feature(seqio.ByteVocabulary()),
            "targets": seqio.Feature(seqio.ByteVocabulary()),
        },
        metric_fns=[accuracy, likelihood],
    )
