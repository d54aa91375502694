"""Notes as sequences of discrete events: a codec, run-length code, tokenizer, decoder, grammar."""
