"""Fill gaps with the pretrained model; each ___ is a gap of a few letters:

python -m t5x.examples.shakespeare.fill_in runs/shakespeare "MACBETH\\tIs this a dag___ before me?"
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from t5x import gin_utils
from t5x.checkpoints import load_params

GAP = "___"
CONFIG = Path(__file__).with_suffix(".gin")
INPUTS, TARGETS = 128, 56  # lengths of pretrain.gin


def encode_prompt(text: str, vocabulary: Any) -> np.ndarray:
    """Ids int32 [L] of a text, sentinels for its gaps, and EOS."""
    ids: list[int] = []
    for number, piece in enumerate(text.split(GAP)):
        ids += [vocabulary.vocab_size - number] if number else []
        ids += vocabulary.encode(piece)
    return np.asarray([*ids, vocabulary.eos_id], np.int32)


def decode_fillings(ids: Sequence[int], vocabulary: Any) -> list[str]:
    """What stands behind each sentinel of the decoded `ids`."""
    first = vocabulary.vocab_size - vocabulary.extra_ids
    fillings: list[list[int]] = []
    for token in ids:
        if token in (vocabulary.eos_id, vocabulary.pad_id):
            break
        if token >= first:
            fillings.append([])
        elif fillings:
            fillings[-1].append(int(token))
    return [vocabulary.decode(filling) for filling in fillings]


def fill_in(
    *, model: Any, checkpoint: str, prompts: Sequence[str], temperature: float, seed: int
) -> list[str]:
    """The prompts with their gaps filled, in [brackets].

    Raises:
      ValueError: a prompt has no gap, or is longer than the model was trained for.
    """
    import jax

    vocabulary = model.input_vocabulary
    inputs = np.zeros((len(prompts), INPUTS), np.int32)
    for row, prompt in zip(inputs, prompts):
        ids = encode_prompt(prompt, vocabulary)
        if GAP not in prompt or len(ids) > INPUTS:
            raise ValueError(f"a prompt has a gap {GAP} and less than {INPUTS} bytes: {prompt!r}")
        row[: len(ids)] = ids
    batch = {
        "encoder_input_tokens": inputs,
        "decoder_input_tokens": np.zeros((len(prompts), TARGETS), np.int32),
    }
    params = jax.tree.map(np.asarray, load_params(checkpoint))
    options = {"temperature": temperature}
    decoded, _ = model.predict_batch_with_aux(
        params, batch, rng=jax.random.key(seed), decoder_params=options
    )
    filled = []
    for prompt, ids in zip(prompts, np.asarray(decoded)):
        fillings = iter(decode_fillings(ids.tolist(), vocabulary))
        filled.append(re.sub(GAP, lambda _, f=fillings: f"[{next(f, '')}]", prompt))
    return filled


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", help="run folder, checkpoint folder or .safetensors file")
    parser.add_argument("prompts", nargs="+", help=f"texts of less than {INPUTS} bytes")
    parser.add_argument(
        "--temperature", type=float, default=0.0, help="of sampling; 0 takes the most likely byte"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    try:
        configured = gin_utils.parse([str(CONFIG)], [], [], fill_in)
        prompts = [prompt.replace("\\n", "\n").replace("\\t", "\t") for prompt in args.prompts]
        for text in configured(
            checkpoint=args.checkpoint,
            prompts=prompts,
            temperature=args.temperature,
            seed=args.seed,
        ):
            print(text)
    except (ValueError, OSError) as error:
        print(f"fill_in: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
