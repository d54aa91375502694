"""seqio's tasks and evaluator beside those here; seqio is imported only when it is used."""
